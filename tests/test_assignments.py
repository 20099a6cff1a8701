"""The assignments of every chapter: well formed, without a solution in a student's hands, and graded as they deserve in three ways."""

import ast
import collections
import re

import nbformat
import pytest
import small_assignment  # noqa: F401  (its gradebooks wait for no disk)

pytest.importorskip("nbgrader")

from support.classroom import cells, course, exercises, feedback, judge, notebook, seeds, self_check, teacher_page, texts, wrong_answers
from support.classroom.cells import BEGIN, END
from support.common import paths

CHAPTERS = cells.chapters()
LEAST = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A course folder for all assignments."""
    return tmp_path_factory.mktemp("course")


@pytest.fixture(scope="module")
def released(folder):
    """``released(chapter)``: the assignment and the student's version, made once."""
    made = {}

    def of(chapter):
        if chapter not in made:
            assignment = exercises.read(chapter)
            course.build(assignment, folder)
            made[chapter] = assignment, course.released(folder, chapter)
        return made[chapter]

    return of


def test_there_are_chapters():
    assert len(CHAPTERS) >= 7


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_has_enough_well_formed_exercises_and_wrong_answers(chapter):
    assignment, problems = exercises.examine(chapter, cells.of_file(cells.source_file(chapter)))
    assert problems == []
    assert len(assignment.exercises) >= LEAST
    assert all(each.hidden_points * 2 >= each.points for each in assignment.exercises)
    answers, problems = wrong_answers.read(assignment)
    assert problems == []
    assert len(answers) >= LEAST


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_student_gets_no_line_of_a_solution_and_none_of_a_hidden_test(chapter, released):
    assignment, release = released(chapter)
    shown = {line.strip() for cell in release.cells for line in cell.source.splitlines()}
    secret = [line for each in assignment.exercises for line in _region(each.solution)]
    secret += [line for each in assignment.exercises for test in each.tests if test.hidden for line in test.source.splitlines()]
    visible = {line.strip() for each in assignment.exercises for test in each.tests if not test.hidden for line in test.source.splitlines()}
    # A line that a visible test or the givens also have gives nothing away: "rng = np.random.default_rng([SEED, 10])".
    given = visible | {line.strip() for text in assignment.givens for line in text.splitlines()}
    telling = [line.strip() for line in secret if len(line.strip()) > 8 and line.strip() not in given]
    assert len(telling) >= 2 * LEAST
    assert [line for line in telling if line in shown] == []
    text = nbformat.writes(release)
    assert not re.search("(BEGIN|END) (SOLUTION|HIDDEN TESTS)", text)
    assert [cell for cell in release.cells if cell.get("outputs")] == []


def _region(solution: str) -> list[str]:
    """The lines between the markers."""
    inside, found = False, []
    for line in solution.splitlines():
        if line.strip() in (BEGIN, END):
            inside = line.strip() == BEGIN
        elif inside:
            found.append(line)
    return found


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_stub_has_the_names_arguments_and_docstrings_of_its_solution(chapter, released):
    assignment, release = released(chapter)
    stubs = {name: cell for cell in release.cells if (name := notebook.grade_id(cell)).endswith(f"-{cells.SOLUTION}")}
    assert [notebook.exercise_of(name) for name in stubs] == [each.name for each in assignment.exercises]
    for each, stub in zip(assignment.exercises, stubs.values(), strict=True):
        wanted, found = exercises.functions(each.answer), exercises.functions(stub.source)
        assert found.keys() == wanted.keys(), each.name
        tested = {node.id for test in each.tests for node in ast.walk(ast.parse(test.source)) if isinstance(node, ast.Name)}
        assert found.keys() & tested, each.name
        for name, function in found.items():
            assert ast.unparse(function.args) == ast.unparse(wanted[name].args), (each.name, name)
            assert ast.get_docstring(function) == ast.get_docstring(wanted[name]), (each.name, name)
        assert "raise NotImplementedError()" in stub.source, each.name


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_student_s_version_is_what_nbgrader_wants(chapter, released):
    from nbgrader.nbgraderformat import MetadataValidator

    assignment, release = released(chapter)
    MetadataValidator().validate_nb(release)
    nbformat.validate(release)
    marks = [cell.metadata.nbgrader for cell in release.cells]
    assert sum(mark.get("points", 0) for mark in marks) == assignment.points
    kinds = collections.Counter((mark["grade"], mark["solution"], mark["locked"]) for mark in marks)
    tests = sum(len(each.tests) for each in assignment.exercises)
    others = 2 + len(assignment.givens) + len(assignment.exercises)
    assert kinds == {
        (True, False, True): tests,
        (False, True, False): len(assignment.exercises),
        (False, False, True): others,
        (True, True, False): len(assignment.exercises),
    }
    assert all(cell.metadata.editable is False for cell in release.cells if cell.metadata.nbgrader["locked"])


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_prompt_has_what_only_the_page_can_show(chapter, released):
    text = "\n".join(cell.source for cell in released(chapter)[1].cells if cell.cell_type == "markdown")
    assert re.findall(r"\{[a-z:-]+\}`[^`]*`|^(?:`{3,}|:{3,})\{", text, re.MULTILINE) == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_solutions_pass_with_every_seed(chapter):
    assignment = exercises.read(chapter)
    for seed in (1, 77, 999999):  # 0 is graded below
        for each in assignment.exercises:
            names = {"__name__": "__main__"}
            parameters = seeds.with_seed(assignment.parameters, seed)
            for text in (*assignment.givens, parameters, each.answer, *(test.source for test in each.tests)):
                try:
                    exec(compile(text, f"{chapter}, {each.name}, SEED {seed}", "exec"), names)
                except AssertionError as error:
                    pytest.fail(f"{each.name} with SEED {seed}: {error}")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_solution_untouched_and_wrong_answers_get_exactly_their_points(chapter):
    assignment = exercises.read(chapter)
    wrong, _ = wrong_answers.read(assignment)
    results = self_check.outcomes(assignment, wrong)
    assert [str(each) for each in results if each.got != each.wanted] == []
    kinds = collections.Counter(each.answer for each in results)
    assert kinds[self_check.SOLUTION] == kinds[self_check.UNTOUCHED] == kinds[self_check.EMPTY] == len(assignment.exercises)
    assert len(results) == 3 * len(assignment.exercises) + len(wrong)
    assert sum(each.got for each in results if each.answer == self_check.SOLUTION) == assignment.points


# Answers that know nothing, of which some are equal to nothing, some to everything, and some have the right shape.
JUNK = (
    "None",
    "True",
    "0",
    "1.0",
    "float('nan')",
    "float('inf')",
    "''",
    "[]",
    "(None, None)",
    "a[0]",
    "0 * a[0]",
    "a[0] + float('nan')",
    "a[-1]",
)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_known_mistakes_are_told_apart_and_feedback_gives_no_hidden_test_away(chapter):
    """For every exercise and every wrong answer, by the tests themselves, here; with answers that know nothing as the null."""
    assignment = exercises.read(chapter)
    instructor = notebook.instructor(assignment)
    tests, wrong = judge.Tests(instructor), wrong_answers.of_chapter(chapter)
    graded = {notebook.grade_id(cell): cell for cell in instructor.cells if notebook.marks(cell).get("grade") and cell.cell_type == "code"}
    for each in assignment.exercises:
        told, numbers = _hidden_and_open(each)
        for test in each.tests:
            assert not test.hidden or re.fullmatch(r"\D{20,}", cells.criterion(test.source)), (
                each.name,
                "a criterion in words, without a number",
            )
        names = list(exercises.functions(each.solution))
        junk = ["\n".join(f"def {name}(*a, **k): return {value}" for name in names) for value in JUNK]
        mistaken = [(answer.source, answer.mistake, answer.points) for answer in wrong if answer.exercise == each.name]
        for source, mistake, points in [*mistaken, *((source, "", 0) for source in junk), (each.answer, "", each.points)]:
            found = tests.outcomes(each.name, source)
            got = sum(notebook.marks(graded[identity])["points"] for identity, one in found.items() if not one.error)
            assert got == points, (each.name, mistake, source)
            if mistake:
                assert tests.mistake(each.name, found) == mistake, each.name
            for identity, one in found.items():
                cell = graded[identity].copy()
                cell["metadata"] = cell.metadata | {judge.VERDICT: {"error": one.error, "said": one.said, "mistake": mistake}}
                words = feedback.words(cell)
                if notebook.is_hidden(identity):
                    assert cells.criterion(cell.source) in words
                    assert [line for line in told if line in words] == []
                    assert set(re.findall(r"\d[\d.]*", words.replace(texts.cell(mistake), ""))) <= numbers
                assert ("Not met" in words) == bool(one.error)
                assert not mistake or not one.error or texts.cell(mistake) in words


def _hidden_and_open(exercise) -> tuple[list[str], set[str]]:
    """Lines and messages of the hidden tests of an exercise that nobody else has, and the numbers that a student knows anyway."""
    hidden = [test.source for test in exercise.tests if test.hidden]
    shown = "\n".join([exercise.prompt, *(test.source for test in exercise.tests if not test.hidden)])
    lines = [line.strip() for source in hidden for line in source.splitlines() if not line.startswith("# ")]
    criteria = "\n".join(map(cells.criterion, hidden))
    told = [line for line in lines if len(line) > 8 and line not in shown and line.strip('"') not in criteria]
    return told, set(re.findall(r"\d[\d.]*", exercise.title))


def test_the_teacher_s_page_has_the_exercises_points_and_mistakes_of_the_sources():
    source = (paths.root() / "book" / "teach.md").read_text(encoding="utf-8")
    assert len(teacher_page.PLACEHOLDER.findall(source)) == 2
    page = teacher_page.filled(source)
    assert not teacher_page.PLACEHOLDER.search(page)
    for chapter in CHAPTERS:
        assert page.count(f"{{doc}}`{chapter}/exercises`") == 2, "the overview and the mistakes name every chapter"
        assert f"{{doc}}`{chapter}/lesson`" in page, "the syllabus names every chapter"
        for answer in wrong_answers.of_chapter(chapter):
            assert texts.cell(answer.mistake) in page
    for name in ("build", "kit", "grade", "report", "check"):
        assert f"python -m support assign {name}" in page


# --- what solutions say beyond their code -----------------------------------------------------------------------------------------


def test_the_width_that_leaves_wendel_s_coin_most_open():
    """ex-null-wendel: torchvision's widths next to 2 (m - 1) = 1998 are 1920, 2016 and 2048."""
    from support.geometry import nullspace

    chances = {width: nullspace.cone_probability(width, 1000) for width in (1920, 2016, 2048)}
    assert min(chances, key=lambda width: abs(chances[width] - 0.5)) == 2016
    (text,) = (cell.source for cell in cells.of_file(cells.source_file(CHAPTERS[2])) if "solution-start} ex-null-wendel" in cell.source)
    assert "the nearest is $l = 2016$" in text


def test_where_a_class_with_a_bias_wins():
    """ex-softmax-hull: it does exactly if its bias exceeds what every convex combination of its weight gives; not always near zero."""
    numpy, optimize = pytest.importorskip("numpy"), pytest.importorskip("scipy.optimize")
    scores = numpy.outer([0, 8.9, 9.1, 10, 10.9, 11.1], [-1, 0, 1]) + numpy.array([10, 1, -10])
    assert scores.argmax(1).tolist() == [0, 0, 1, 1, 1, 2]
    rng, seen = numpy.random.default_rng(0), set()
    for _ in range(60):
        weight, bias = rng.standard_normal((6, 2)), rng.standard_normal(6)
        rows, bounds = numpy.c_[weight[1:] - weight[0], numpy.ones(5)], [(None, None)] * 2 + [(None, 1)]
        lead = optimize.linprog([0, 0, -1], rows, bias[0] - bias[1:], bounds=bounds)
        most = optimize.linprog(-bias[1:], A_eq=numpy.vstack([weight[1:].T, numpy.ones(5)]), b_eq=[*weight[0], 1])
        wins, inside = lead.fun < -1e-9, most.status == 0
        assert wins == (not inside or bias[0] > -most.fun + 1e-9)
        seen.add((wins, inside))
    assert seen == {(True, False), (True, True), (False, True)}
