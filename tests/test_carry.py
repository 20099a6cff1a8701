"""Carrying: a refactoring keeps a record, and whatever could have changed a number does not."""

import dataclasses
import math
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import tiny_book
import torch

import support
from support.book import carry, execute, kernels, manifests, units
from support.book.carry import NotCarried

CHAPTER = tiny_book.CHAPTER
HEAD = tiny_book.PARAMETERS.replace("PART", "evidence")
SOURCE = f'''# %% [markdown]
# # Evidence
{HEAD}
import time

import torch


def error():
    """How wrong."""
    found = 2 * 2 - 4
    return found


def more(steps):
    """What only a larger profile adds."""
    if steps > 10:
        return 0
    return 0.0


def trained(steps, seed):
    """A network as long as the steps, and the time that it took."""
    width = steps // 10
    return {{"weights": torch.full((width + seed,), 0.5), "seconds": time.perf_counter()}}


def deep(weights, wait):
    """A second unit, of what the first ones give."""
    time.sleep(wait)
    return float(weights.sum())


run.claim("tiny2020.thm1", error=error() + more(p.steps))
made = run.each_seed(trained, p.steps)
run.once(deep, made[0]["weights"], wait=0)
run.claim("tiny2020.table1", accuracy=[0.9 for _ in run.seeds], modern={{"worst": 0.1}})
run.finish()
'''
REFACTORED = SOURCE.replace("found = 2 * 2 - 4", "twice = 2 * 2\n    found = twice - 4")
OTHER_NUMBERS = SOURCE.replace("2 * 2 - 4", "2 * 2 - 5")
OUT_OF_REACH = SOURCE.replace("return 0\n", "return 1\n")
# Of the sizes of quick nothing is seen of it, and of the claims of no size.
ONLY_AT_STANDARD = REFACTORED.replace("width = steps // 10", "width = steps // 10 + steps // 50")
TRAINED_OTHERWISE = SOURCE.replace("width = steps // 10", "width = int(steps / 10)")
PACKAGE = Path(support.__file__).parent


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), "-c", "user.name=A", "-c", "user.email=a@b.c", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@dataclasses.dataclass
class Repository:
    root: Path

    def commit(self, source: str) -> str:
        (self.root / "book" / CHAPTER / "evidence.py").write_text(source, encoding="utf-8")
        git(self.root, "add", "-A")
        git(self.root, "commit", "-q", "--allow-empty", "-m", "a step")
        return git(self.root, "rev-parse", "HEAD")

    @property
    def record(self) -> manifests.Manifest:
        return manifests.manifest_of(manifests.recorded_run(CHAPTER, "standard"))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A repository with a record at standard: the package, and a book of one chapter."""
    root = tmp_path_factory.mktemp("carry") / "repository"
    shutil.copytree(PACKAGE, root / "support", ignore=shutil.ignore_patterns("__pycache__"))
    tiny_book.make(root, SOURCE, lesson="", exercises="")
    (root / ".gitignore").write_text("__pycache__/\n/_build/\n/data/cache/\n", encoding="utf-8")
    git(root, "init", "-q")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOK_ROOT", str(root))
        patch.setenv("BOOK_CACHE", str(root / "data" / "cache"))
        repository = Repository(root)
        repository.commit(SOURCE)
        execute.execute(CHAPTER, "standard", record=True, only="evidence")
        yield repository


@pytest.fixture
def repository(recorded):
    file = manifests.manifest_path(manifests.recorded_run(CHAPTER, "standard"))
    before = file.read_text(encoding="utf-8")
    yield recorded
    file.write_text(before, encoding="utf-8")


def test_a_refactoring_keeps_the_record(repository):
    commit = repository.commit(REFACTORED)
    assert manifests.is_stale(repository.record)
    stamp = carry.carry(CHAPTER, "standard")
    assert stamp.commit == commit and repository.record.carried == [stamp]
    assert not manifests.is_stale(repository.record) and manifests.is_current(repository.record)
    assert "worktree" not in git(repository.root, "worktree", "list").replace(str(repository.root), "")
    with pytest.raises(NotCarried, match="is not older than its code"):
        carry.carry(CHAPTER, "standard")
    repository.commit(SOURCE.replace("found = 2 * 2 - 4", "found = 4 - 4"))  # another step makes it stale again
    assert manifests.is_stale(repository.record)


def compared(repository, tmp_path, source: str, minutes: float = 10) -> int:
    """How many units of the record are the same under a source."""
    repository.commit(source)
    with carry.checkout(repository.record.commit, tmp_path / "then") as then, carry.checkout("HEAD", tmp_path / "now") as now:
        return carry.Sample(repository.record, tmp_path, minutes).compare(then, now)


def test_a_refactoring_of_a_unit_gives_the_same_at_the_records_size(repository, tmp_path):
    assert compared(repository, tmp_path, TRAINED_OTHERWISE) == 3  # of each seed; what follows from them is untouched


def test_what_only_the_records_size_meets_is_refused_also_without_the_records_cache(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_CACHE", str(tmp_path / "empty"))
    with pytest.raises(NotCarried, match="at standard: trained gives something else"):
        compared(repository, tmp_path, ONLY_AT_STANDARD)


def drawn(factor):
    """A unit of the same name, whose key has the factor: so many times ones, and a time."""

    def unit(count):
        return {"ones": factor * torch.ones(count), "seconds": time.perf_counter()}

    return unit


@pytest.mark.parametrize(
    ("today", "chosen", "noted"),
    [
        (drawn(1), {0}, [(0, None)]),  # the same key: nothing to try
        (drawn(1.0), {0, 1}, [(0, True)]),
        (drawn(1.0), set(), []),
        (drawn(1 + 2**-20), {0}, [(0, False)]),
        (drawn(1 + 2**-20), set(), []),  # the result of the record, as if it were its own
    ],
)
def test_a_unit_of_other_code_is_compared_if_it_is_chosen_and_else_that_of_the_record(tmp_path, today, chosen, noted):
    lines = []
    before = units.SeenCache(lambda **line: lines.append(line), None, set(), folder=tmp_path)
    first = before.once(drawn(1), 3)
    earlier, lines[:] = {line["unit"]: line for line in lines}, []
    assert set(earlier) == {0} and earlier[0]["seconds"] >= 0
    cache = units.SeenCache(lambda **line: lines.append(line), earlier, chosen, folder=tmp_path)
    if (0, False) in noted:
        with pytest.raises(SystemExit):
            cache.once(today, 3)
    else:
        assert torch.equal(cache.once(today, 3)["ones"], first["ones"])
        with pytest.raises(SystemExit):  # as far as the run under the record's commit came
            cache.once(today, 4)
    same = [(line["unit"], line["same"]) for line in lines if "same" in line]
    assert same == [each for each in noted if each[1] is not None]
    assert ("touched" in str(lines)) == ((0, None) not in noted)


def test_the_cheapest_units_of_each_function_are_computed_again():
    touched = dict(enumerate(["fit", "fit", "attack", "attack", "attack"]))
    seconds = dict(enumerate([90.0, math.inf, 3.0, 2.0, 8.0]))
    assert carry.cheapest(touched, seconds, 10) == [3, 2, 0]
    assert carry.cheapest(touched, seconds, 0) == [3, 0]
    assert carry.cheapest({}, {}, 10) == []


def test_what_cannot_be_tried_in_time_is_refused(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(carry.Sample, "_run", lambda self, name, root, **_: [])  # no time for a single unit
    with pytest.raises(NotCarried, match=r"no unit of what changed could be tried in 3 minutes: .*--minutes"):
        compared(repository, tmp_path, TRAINED_OTHERWISE, 3)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (OTHER_NUMBERS, "other numbers at quick: tiny2020.thm1 error"),
        (OUT_OF_REACH, "does not reach changed lines: .*evidence.py:"),
    ],
)
def test_what_could_change_a_number_is_not_carried(repository, source, reason):
    repository.commit(source)
    with pytest.raises(NotCarried, match=reason):
        carry.carry(CHAPTER, "standard")
    assert repository.record.carried == [] and manifests.is_stale(repository.record)


def test_what_nobody_can_tell_is_refused_before_anything_runs(repository, monkeypatch):
    monkeypatch.setattr(carry, "quick", lambda *_: pytest.fail("ran"))
    repository.commit(REFACTORED)
    file = manifests.manifest_path(manifests.recorded_run(CHAPTER, "standard"))
    whole = repository.record
    for change, reason in (
        ({"dirty": True}, "not computed from a clean commit"),
        ({"commit": None}, "not computed from a clean commit"),
        ({"versions": whole.versions | {"torch": "1.0"}}, "parameters, claims or versions have changed"),
        ({"parameters": whole.parameters | {"steps": 7}}, "parameters, claims or versions have changed"),
        ({"claims": {}}, "parameters, claims or versions have changed"),
        ({"commit": "0" * 40}, "cannot be checked out"),
    ):
        file.write_text(execute.text_of_manifest(whole.model_copy(update=change)), encoding="utf-8")
        with pytest.raises(NotCarried, match=reason):
            carry.carry(CHAPTER, "standard")
    file.write_text(execute.text_of_manifest(whole), encoding="utf-8")
    (repository.root / "stray.txt").write_text("")
    with pytest.raises(NotCarried, match="changes that are not committed"):
        carry.carry(CHAPTER, "standard")
    (repository.root / "stray.txt").unlink()
    with pytest.raises(NotCarried, match="no record at paper"):
        carry.carry(CHAPTER, "paper")


def test_moving_a_definition_is_no_change_and_its_statements_are_what_counts(tmp_path, monkeypatch):
    then, now = tmp_path / "then", tmp_path / "now"
    kernel = 'def deep(x):\n    """Doc."""\n    if x < 0:\n        raise ValueError(x)\n    return (\n        x\n        + 1\n    )\n'
    for root, rooms in ((then, {"a.py": kernel + "K = 1\n", "b.py": ""}), (now, {"a.py": "K = 1\n", "b.py": kernel.replace("+ 1", "+ 2")})):
        (root / "book" / CHAPTER).mkdir(parents=True)
        (root / "support" / "common").mkdir(parents=True)
        for module in ("common/__init__.py", "common/fingerprint.py", "__init__.py"):
            shutil.copy(PACKAGE / module, root / "support" / module)
        for name, text in rooms.items():
            (root / "support" / name).write_text(text, encoding="utf-8")
        room = "a" if root == then else "b"
        text = f"# %%\nfrom support.{room} import deep\n\ndeep(1)\n"
        (root / "book" / CHAPTER / "evidence.py").write_text(text, encoding="utf-8")
    source = now / "book" / CHAPTER / "evidence.py"
    changed = carry.changed_lines(CHAPTER, then, source)
    assert changed == {now / "support" / "b.py": [range(3, 4), range(5, 9)], source: [range(2, 3)]}
    (now / "support" / "b.py").write_text(kernel, encoding="utf-8")  # moved as it was
    assert carry.changed_lines(CHAPTER, then, source) == {source: [range(2, 3)]}
    assert os.environ.get(kernels.LINES) is None
