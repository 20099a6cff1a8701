"""The hash of the code: what can change a number counts, what cannot does not."""

import ast
import itertools
from pathlib import Path

import pytest

from support.common import fingerprint


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package ``support`` of a few modules in a temporary folder, and a function that changes one and hashes the chapter."""
    root = tmp_path / "support"
    files = {
        "chapter.py": '"""A chapter."""\nfrom support import kernel\nfrom support.book import plots\nx = kernel.f(1)  # one\nplots.draw(x)',
        "support/__init__.py": "",
        "support/kernel.py": "from support.inner import deep\nfrom support.inner.side import g\ndef f(x):\n    return deep.h(x) + g(x)\n",
        "support/inner/__init__.py": "from .relative import r\n",
        "support/inner/deep.py": "from ..base import b\n\n\ndef h(x):\n    return b * x\n",
        "support/inner/side.py": "from . import deep\n\n\ndef g(x):\n    return deep.h(x)\n",
        "support/inner/relative.py": "r = 1\n",
        "support/base.py": "b = 2\n",
        "support/guard.py": "def check_x(x) -> None:\n    assert x\ndef check_y(x):\n    return x\n",
        "support/book/plots.py": "import support.drawing\ndef draw(x):\n    support.drawing.line(x)\n",
        "support/drawing.py": "def line(x):\n    return x\n",
        "support/unused.py": "u = 1\n",
        "support/lazy.py": "from support import tools\n\n\ndef late():\n    return tools.t\n",
        "support/tools.py": "t = 1\nspare = 1\n",
        "support/book/__init__.py": "",
        "support/classroom/__init__.py": "",
        "support/common/__init__.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(fingerprint, "PACKAGE", root)

    def digest_with(name: str = "chapter.py", old: str = "", new: str = "") -> str:
        assert old in files[name]
        (tmp_path / name).write_text(files[name].replace(old, new) if old else files[name])
        try:
            return fingerprint.digest([tmp_path / "chapter.py"])
        finally:
            (tmp_path / name).write_text(files[name])

    return digest_with


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("chapter.py", "  # one", "  # another comment"),
        ("chapter.py", '"""A chapter."""\n', ""),
        ("chapter.py", "x = kernel.f(1)", "\n\nx  =  kernel . f( 1, )"),
        ("chapter.py", "kernel.f(1)", "(kernel.f(\n    0x1\n))"),
        ("support/kernel.py", "def f(x):\n", 'def f(x):\n    """What f is."""\n    # and why\n'),
        ("support/base.py", "b = 2\n", '"""The base."""\nb = 2\n'),
        ("support/book/plots.py", "line(x)", "line(2 * x)"),
        ("support/drawing.py", "return x", "return 2 * x"),  # reached through plots only
        ("support/unused.py", "u = 1", "u = 2"),
        ("support/kernel.py", "def f(x)", "def new(x):\n    return 2 * x\n\n\ndef f(x)"),  # another definition, which nobody uses
        ("support/base.py", "b = 2", "b = 2\nc = 3"),
        ("support/kernel.py", "import g\n", "import g, late\n"),  # another name from the same module
        ("support/inner/relative.py", "r = 1", "r = 2"),  # imported, but never used
        ("support/kernel.py", "def f(x)", "from support import unused\n\n\ndef f(x)"),
        ("support/base.py", "b = 2", 'b = 2\n"""What b is."""'),
    ],
)
def test_what_cannot_change_a_number_does_not_count(package, name, old, new):
    assert package(name, old, new) == package()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("chapter.py", "kernel.f(1)", "kernel.f(2)"),
        ("chapter.py", "kernel.f(1)", "kernel.f('1')"),
        ("chapter.py", "kernel.f(1)", "kernel.f(1.0)"),
        ("chapter.py", "kernel.f(1)", "kernel.f(True)"),
        ("chapter.py", "x = ", "y = "),
        ("support/kernel.py", "deep.h(x) + g(x)", "deep.h(x) - g(x)"),
        ("support/inner/deep.py", "b * x", "x * b"),
        ("support/inner/side.py", "deep.h(x)", "-deep.h(x)"),
        ("support/kernel.py", "import g\n", "import other as g\n"),
        ("support/base.py", "b = 2", "b = 3"),  # from .. two levels down
        ("support/base.py", "b = 2", "b = 2\nb += 1"),  # no definition: it runs on import
        ("support/base.py", "b = 2", "import support.unused\nb = 2\nsupport.unused.u += 1"),
    ],
)
def test_what_can_change_a_number_counts(package, name, old, new):
    assert package(name, old, new) != package()


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("from support import lazy\nx = lazy.late()", True),  # through an attribute of a module, twice
        ("import support.lazy as renamed\nx = renamed.late()", True),
        ("import support.lazy\nx = support.lazy.late()", True),
        ("from support.lazy import late as later\nx = later()", True),
        ("from support.lazy import *\nx = late()", True),
        ("from support import tools\nx = getattr(tools, 't')", True),  # a module handed on: anything in it
        ("from support import lazy\nx = run.once(lazy.late)", True),
        ("from support.lazy import late\nx = run.each_seed(late)", True),
        ("from support import lazy\nx = lazy.__name__", False),
        ("from support.tools import spare\nx = spare", False),
        ("from support.guard import check_x\nx = check_x(1)", False),  # it can only refuse
        ("from support.guard import check_y\nx = check_y(1)", True),  # it returns something
    ],
)
def test_what_is_used_counts_however_it_is_imported(package, tmp_path, line, counts):
    def with_value(value: int) -> str:
        (tmp_path / "support/tools.py").write_text(f"t = {value}\nspare = 1\n")
        guards = f"def check_x(x) -> None:\n    assert x == {value}\n\n\ndef check_y(x):\n    return x + {value}\n"
        (tmp_path / "support/guard.py").write_text(guards)
        return package("chapter.py", "x = kernel.f(1)", line)

    assert (with_value(1) != with_value(2)) is counts


def test_a_string_that_is_no_docstring_counts(package):
    first = package("support/kernel.py", "return deep", 'y = "a"\n    return deep')
    assert first != package("support/kernel.py", "return deep", 'y = "b"\n    return deep')


def test_the_place_of_a_file_does_not_count(package, tmp_path):
    here = package()
    moved = tmp_path / "elsewhere" / "chapter.py"
    moved.parent.mkdir()
    moved.write_text((tmp_path / "chapter.py").read_text())
    assert fingerprint.digest([moved]) == here


def test_entries_count_as_a_set(package, tmp_path):
    entries = [tmp_path / "chapter.py", tmp_path / "support" / "unused.py", tmp_path / "support" / "base.py"]
    assert len({fingerprint.digest(order) for order in itertools.permutations(entries)}) == 1
    assert fingerprint.digest(entries) == fingerprint.digest([*entries, entries[0]]) != fingerprint.digest(entries[:1])


FIGURE = """# %%
from support import tools
x = tools.spare

# %% name="fig-one"
figure = tools.t
"""


@pytest.mark.parametrize(
    ("cells", "counts"),
    [
        (FIGURE, False),
        (FIGURE.replace('name="fig-one"', 'tags=["hide-input"] name="fig-one"'), False),
        (FIGURE.replace(' name="fig-one"', ""), True),
        (FIGURE.replace("fig-one", "table-one"), True),
        (FIGURE + "# %%\nrun.claim(error=figure)\n", True),  # another cell uses what it gives a value
        (FIGURE + "# %%\nrun.claim(error=x)\n", False),
        (FIGURE + "# %%\nfigure = x\nfigure.show()\n", False),  # which has a value of its own
        (FIGURE + "# %%\nprint([figure for _ in x])\n", True),
        (FIGURE.replace("figure = tools.t", 'run.keep("number", tools.t)'), True),
        (FIGURE.replace("figure = tools.t", 'run.claim("a.b", error=tools.t)'), True),
        (FIGURE + "# %%\nfigure = figure + 1\nrun.claim(error=figure)\n", True),
        (FIGURE + "# %%\nfigure += 1\nrun.claim(error=figure)\n", True),
        (FIGURE.replace("figure = tools.t", "x[0] = tools.t") + "# %%\nrun.claim(error=x)\n", True),
        (FIGURE.replace("figure = tools.t", "if x:\n    def figure():\n        return tools.t"), True),
        (FIGURE.replace("figure = tools.t", "def figure():\n    return tools.t"), True),  # whoever calls it
        (FIGURE.replace("figure = tools.t", "from support.tools import t\nfigure = t"), True),
        (FIGURE.replace("figure = tools.t", "for shown in [tools.t]:\n    print(shown)"), False),
        (FIGURE + "# %%\nfor figure in [x]:\n    print(figure)\n", False),  # a value of the loop's own
        (FIGURE + "# %%\nfor figure in []:\n    pass\nprint(figure)\n", True),  # which may have had no turn
        (FIGURE + "# %%\nif x:\n    figure = x\n    print(lambda: figure)\n", False),
        (FIGURE + "# %%\nif x:\n    figure = x\nelse:\n    print(figure)\n", True),
        (FIGURE.replace("figure = tools.t", "for shown in [tools.t]:\n    print(shown)") + "# %%\nrun.claim(error=shown)\n", True),
    ],
)
def test_a_figure_does_not_count_unless_another_cell_uses_what_it_makes(package, tmp_path, cells, counts):
    def with_value(value: int) -> str:
        (tmp_path / "support/tools.py").write_text(f"t = {value}\nspare = 1\n")
        return package("chapter.py", "x = kernel.f(1)  # one\n", cells)

    assert (with_value(1) != with_value(2)) is counts


@pytest.mark.parametrize(
    ("module", "counts"),
    [("book.plots", False), ("book.claims", False), ("classroom.cells", False), ("common.progress", False),
     ("book.chapter_run", True), ("book.profiles", True), ("common.arguments", True), ("common.vision", True), ("networks", True)],
)  # fmt: skip
def test_modules_that_only_draw_file_judge_or_talk_do_not_count(package, tmp_path, module, counts):
    def with_value(value: int) -> str:
        (tmp_path / f"support/{module.replace('.', '/')}.py").write_text(f"def f(x):\n    return {value}\n")
        return package("chapter.py", "kernel.f(1)", f"kernel.f(1)\nimport support.{module} as other\nother.f(1)")

    assert (with_value(1) != with_value(2)) is counts


def test_what_is_left_out_is_there_and_what_is_reached_is_not_left_out():
    package = Path(fingerprint.__file__).parents[1]
    named = [package.joinpath(*name.split(".")[1:]) for name in fingerprint.PRESENTATION]
    assert [place for place in named if not (place.is_dir() or place.with_suffix(".py").is_file())] == []
    reached = {file for file, _ in fingerprint.definitions([package / "book" / "chapter_run.py"])}
    assert {"book/profiles.py", "data.py"} <= reached
    left_out = {place.relative_to(package).with_suffix(".py").as_posix() for place in named}
    assert not left_out & reached
    assert len(fingerprint.digest([package / "data.py"])) == 16


def test_what_is_left_out_as_a_refusal_changes_nothing():
    """A function that the hash leaves out neither returns a value nor writes into what it is given."""
    package, count = Path(fingerprint.__file__).parents[1], 0
    for file in package.rglob("*.py"):
        for function in ast.parse(file.read_text(encoding="utf-8")).body:
            if fingerprint._refuses(function):
                count += 1
                inside = list(ast.walk(function))
                assert not any(isinstance(node, ast.Return) and node.value for node in inside), f"{file.name}: {function.name}"
                stored = [target for node in inside if isinstance(node, ast.Assign) for target in node.targets]
                stored += [node.target for node in inside if isinstance(node, ast.AugAssign)]
                assert not any(isinstance(target, ast.Subscript | ast.Attribute) for target in stored), f"{file.name}: {function.name}"
                called = [node.func.attr for node in inside if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
                assert not any(name.endswith("_") for name in called), f"{file.name}: {function.name} works in place"
    assert count >= 10
