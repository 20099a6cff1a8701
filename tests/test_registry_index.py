"""The registry is complete: everything that the papers number or assert is a claim, or is left out with a reason."""

import ast
import collections
import re
import shutil
import subprocess
import sys

import pytest
import tiny_book
import yaml
from pydantic import Field

from support.book import claims, manifests, registry_index
from support.book.rules import Strict
from support.common import paths

PAPERS = sorted(file.stem for file in registry_index.folder().glob("*.yml") if file.stem != "exclusions")
KINDS = "Theorem|Lemma|Proposition|Corollary|Definition|Remark|Conjecture|Algorithm|Table|Figure|Equation"
RANGE = re.compile(rf"({KINDS})s? (\d+\.)?(\d+) to (?:\2)?(\d+)")
NUMBER = r"\d+(?:\.\d+)*[a-z]?"
# "After Theorem 2", "on Table 1" and "at Figure 24" name what stands near the thing, not the thing.
NAMED = re.compile(rf"(?<!after )(?<!on )(?<!at )({KINDS})s? ({NUMBER}(?:(?:, | and | to ){NUMBER})*)", re.IGNORECASE)
# How far the papers count, read off their last pages.
COUNTED = {
    "hess2020": {"Theorem": 2, "Definition": 1, "Algorithm": 1, "Equation": 4, "Table": 1, "Figure": 3},
    "wang2022": {"Equation": 17, "Table": 2, "Figure": 6},
    "zou2018": {"Theorem": 2, "Definition": 2, "Figure": 1},
    "alfarra2021": {"Proposition": 1, "Equation": 7, "Table": 3, "Figure": 4},
    "bell2023": {"Remark": 3, "Algorithm": 1, "Equation": 143, "Table": 3, "Figure": 24},
}
BY_SECTION = {  # bell2023 numbers these within its sections
    "Definition 1.": 8, "Definition 4.": 2, "Definition 14.": 3, "Lemma 14.4": 1, "Theorem 14.5": 1, "Lemma 17.1": 1, "Theorem 30.6": 1,
    "Proposition 4.3": 1, "Proposition 10.1": 1, "Definition 30.": 9, "Lemma 30.11": 1,
}  # fmt: skip


class Passage(Strict):
    """A place in a paper and the ids of the claims that stand for it; none for one that is excluded."""

    at: str = Field(min_length=1)
    claims: tuple[str, ...] = ()


class Index(Strict):
    passages: tuple[Passage, ...] = Field(min_length=1)


def index(key: str) -> tuple[Passage, ...]:
    file = registry_index.folder() / f"{key}.yml"
    return claims.parsed(f"index/{file.name}", file.read_text(encoding="utf-8"), Index).passages


def expanded(name: str) -> list[str]:
    """The single names that a range stands for: ``Definitions 1.2 to 1.3`` is ``Definition 1.2`` and ``Definition 1.3``."""
    if not (found := RANGE.fullmatch(name)):
        return [name]
    return [f"{found[1]} {found[2] or ''}{last}" for last in range(int(found[3]), int(found[4]) + 1)]


def named(where: str) -> list[str]:
    """The numbered things that a place in a paper names: ``Figure 4; Definitions 3.1 and 3.2`` names three."""
    found = [(kind, part) for kind, numbers in NAMED.findall(where) for part in re.split(r", | and ", numbers)]
    return [name for kind, part in found for name in expanded(f"{kind.capitalize()} {part}")]


def shown(erratum: claims.Erratum) -> bool:
    """Whether there is the test that shows an erratum, or the cell that states this claim."""
    place, _, claim = erratum.shown_by.partition("#")
    name, _, test = place.partition("::")
    file = manifests.source_file(*place.split("/")) if claim else paths.root() / name
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if claim:
        return re.search(rf"run\.claim\(\s*[\"']{re.escape(claim)}[\"']", text) is not None
    wanted = test.partition("[")[0]
    return any(isinstance(one, ast.FunctionDef) and one.name == wanted for one in ast.parse(text).body)


def places(key: str) -> list[str]:
    return [name for passage in index(key) for name in expanded(passage.at)]


def gaps(key: str) -> list[str]:
    """Everything in which a paper, its index and the exclusions disagree: a place that is covered and excluded, or neither, or listed
    twice; a claim that is not registered, or not in the index; an exclusion of what is not in the index; a claim whose ``where`` names
    a numbered thing that the index does not give it."""
    registered = {claim.id: claim for claim in claims.registry()[key].claims}
    covering = {name: passage.claims for passage in index(key) for name in expanded(passage.at)}
    listed = collections.Counter(places(key))
    groups = [group for paper, group in registry_index.exclusions() if paper == key]
    left_out = collections.Counter(name for group in groups for item in group.items for name in expanded(item))
    covered = {claim for found in covering.values() for claim in found}
    problems = [f"{name} is in the index twice" for name, count in listed.items() if count > 1]
    problems += [f"{name} is excluded {count} times" for name, count in left_out.items() if count > 1]
    problems += [f"{name} is excluded, but is not in the index" for name in left_out if name not in covering]
    problems += [
        f"{name}: no claim {claim} is registered" for name, found in covering.items() for claim in found if claim not in registered
    ]
    problems += [f"{name} is neither covered nor excluded" for name, found in covering.items() if not found and name not in left_out]
    problems += [f"{name} is both covered by a claim and excluded" for name, found in covering.items() if found and name in left_out]
    problems += [f"the claim {claim} is not in the index" for claim in registered if claim not in covered]
    return problems + [
        f"{claim.id} names {name}, where the index does not have it"
        for claim in registered.values()
        for name in named(claim.where)
        if claim.id not in covering.get(name, ())
    ]


@pytest.mark.parametrize("key", PAPERS)
def test_claims_index_and_exclusions_agree(key):
    assert gaps(key) == []


def test_every_paper_of_the_registry_has_an_index_and_no_other():
    """A registry file without an entry in the bibliography holds claims of our own, which have no paper to be complete for."""
    bibliography = (paths.root() / "book" / "references.bib").read_text(encoding="utf-8")
    assert PAPERS == sorted(key for key in claims.registry() if f"{{{key}," in bibliography) == sorted(COUNTED)
    assert {paper for paper, _ in registry_index.exclusions()} <= set(PAPERS)


@pytest.mark.parametrize("key", sorted(COUNTED))
def test_everything_that_is_numbered_is_in_the_index(key):
    found = places(key)
    for kind, last in COUNTED[key].items():
        numbers = {int(match[1]) for name in found if (match := re.fullmatch(rf"{kind} (\d+)[a-z]?", name))}
        first = min(numbers)
        assert (first, numbers) == (0 if kind == "Remark" else 1, set(range(first, last + 1))), kind


def test_what_is_numbered_by_section_is_in_the_index():
    found = places("bell2023")
    for beginning, count in BY_SECTION.items():
        assert sum(name == beginning or (beginning.endswith(".") and name.startswith(beginning)) for name in found) == count, beginning


def test_places_are_read_off_a_sentence():
    assert named("Equations 12, 18 and 30; Lemma 17.1") == ["Equation 12", "Equation 18", "Equation 30", "Lemma 17.1"]
    assert named("Definitions 30.7 to 30.9, figure 1a") == [
        "Definition 30.7",
        "Definition 30.8",
        "Definition 30.9",
        "Figure 1a",
    ]
    assert named("Section 3.2, after Theorem 2; Section 4, on Table 1") == []
    assert expanded("Equations 2 to 4") == ["Equation 2", "Equation 3", "Equation 4"]
    assert expanded("Sections 1.4.2 and 1.4.3") == ["Sections 1.4.2 and 1.4.3"]


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """``copy(file, change)`` changes one file of a copy of the registry: its content goes in and comes out as Python data."""
    (tmp_path / paths.MARKER).write_text("", encoding="utf-8")
    shutil.copytree(claims.folder(), tmp_path / "data" / "claims")
    monkeypatch.setenv("BOOK_ROOT", str(tmp_path))

    def changed(file: str, change) -> None:
        path = claims.folder() / file
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")

    return changed


INDEX, REGISTRY, EXCLUSIONS = "index/zou2018.yml", "zou2018.yml", "index/exclusions.yml"


def passage(content: dict, at: str) -> dict:
    return next(passage for passage in content["passages"] if passage["at"] == at)


@pytest.mark.parametrize(
    ("file", "change", "problem"),
    [
        (INDEX, lambda c: passage(c, "Definition 2").pop("claims"), "Definition 2 is neither covered nor excluded"),
        (INDEX, lambda c: c["passages"].remove(passage(c, "Definition 2")), "the claim zou2018.def2 is not in the index"),
        (INDEX, lambda c: c["passages"].append({"at": "Theorem 1"}), "Theorem 1 is in the index twice"),
        (INDEX, lambda c: c["passages"].append({"at": "Lemma 9"}), "Lemma 9 is neither covered nor excluded"),
        (INDEX, lambda c: passage(c, "Theorem 1")["claims"].append("zou2018.thm9"), "no claim zou2018.thm9 is registered"),
        (INDEX, lambda c: passage(c, "Theorem 1")["claims"].remove("zou2018.thm1-sharp"), "zou2018.thm1-sharp names Theorem 1"),
        (REGISTRY, lambda c: c["claims"].pop(0), "no claim zou2018.def1 is registered"),
        (EXCLUSIONS, lambda c: c["papers"]["zou2018"][0]["items"].append("Theorem 2"), "Theorem 2 is both covered by a claim and excluded"),
        (EXCLUSIONS, lambda c: c["papers"]["zou2018"][0]["items"].append("Theorem 7"), "Theorem 7 is excluded, but is not in the index"),
        (EXCLUSIONS, lambda c: c["papers"]["zou2018"].append(c["papers"]["zou2018"][0]), "its notation is excluded 2 times"),
    ],
)  # fmt: skip
def test_each_way_to_disagree_is_found(copy, file, change, problem):
    assert gaps("zou2018") == []
    copy(file, change)
    assert any(problem in found for found in gaps("zou2018"))


@pytest.mark.parametrize(
    ("file", "change"),
    [
        (EXCLUSIONS, lambda c: c["papers"]["zou2018"][0].pop("reason")),
        (EXCLUSIONS, lambda c: c["papers"]["zou2018"][0].update(items=[])),
        (INDEX, lambda c: c.update(passages=[])),
        (INDEX, lambda c: c["passages"][0].update(claim="zou2018.thm1")),
    ],
)  # fmt: skip
def test_a_list_that_breaks_its_schema_is_refused(copy, file, change):
    copy(file, change)
    with pytest.raises(claims.ClaimError, match=r"index/(zou2018|exclusions)\.yml"):
        gaps("zou2018")


# --- what shows an erratum ----------------------------------------------------------------------------------------------------------

ERRATA = {claim.id: claim.erratum for paper in claims.registry().values() for claim in paper.claims if claim.erratum}


def test_each_erratum_is_shown_by_a_test_or_a_cell_that_is_there():
    assert [f"{name}: {found.shown_by}" for name, found in ERRATA.items() if not shown(found)] == []


def test_tests_that_show_an_erratum_are_collected():
    pointers = {found.shown_by for found in ERRATA.values() if "::" in found.shown_by}
    other = "tests/test_rules.py::test_rulers"
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *sorted({*pointers, other})]
    said = subprocess.run(command, cwd=paths.root(), capture_output=True, encoding="utf-8", check=False).stderr
    missing = re.findall(r"not found: \S*?(tests/\S+::.*)", said)
    assert missing == [other], said


@pytest.mark.parametrize(
    ("pointer", "there"),
    [
        ("01_tiny/evidence#tiny2020.thm1", True), ("01_tiny/evidence#tiny2020.none", False),
        ("02_next/evidence#tiny2020.thm1", False), ("tests/test_tiny.py::test_it", True), ("tests/test_tiny.py::test_it[3-a]", True),
        ("tests/test_tiny.py::test_other", False), ("tests/test_none.py::test_it", False),
    ],
)  # fmt: skip
def test_a_pointer_that_leads_nowhere_is_found(tmp_path, monkeypatch, pointer, there):
    monkeypatch.setenv("BOOK_ROOT", str(tiny_book.make(tmp_path)))
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_tiny.py").write_text("def test_it():\n    assert True\n", encoding="utf-8")
    assert shown(claims.Erratum(text="So.", shown_by=pointer)) == there
