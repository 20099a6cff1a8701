"""What a newcomer gets: pins that hold together, files that agree with each other, notebooks that were executed."""

import ast
import importlib.metadata
import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from support.book import claims, manifests
from support.common import paths

ROOT = paths.root()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
PAIRS = [(chapter, part) for chapter in manifests.chapters() for part in manifests.parts(chapter)]


def _name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _tracked() -> list[Path]:
    """Files under version control, and new ones that git does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


# --- versions ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "version"),
    [("jupyter-book", "1.0.4.post1"), ("papermill", "2.7.0"), ("nbval", "0.11.0"), ("nbgrader", "0.9.6"), ("torchattacks", "3.3.0")],
)
def test_the_tools_have_the_versions_that_work_together(name, version):
    assert importlib.metadata.version(name) == version == PINS[name]


@pytest.mark.parametrize(("name", "least"), [("requests", "2.32"), ("SQLAlchemy", "2.0"), ("jupyterlab", "4.2"), ("numpy", "2.0")])
def test_nothing_was_dragged_back_by_an_old_pin(name, least):
    assert Version(importlib.metadata.version(name)) >= Version(least)


def test_every_requirement_has_an_exact_pin_inside_its_range():
    wanted = [Requirement(line) for line in itertools.chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())]
    pins = {_name(name): version for name, version in PINS.items()}
    assert len(wanted) > 25
    assert [str(need) for need in wanted if not need.specifier.contains(pins.get(_name(need.name), "0"), prereleases=True)] == []


def test_the_constraints_are_one_exact_version_each_in_order():
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    names = [line.partition("==")[0] for line in lines]
    assert len(PINS) == len(lines) == len({_name(name) for name in names}) > 150
    assert names == sorted(names, key=str.lower)
    assert not any("+" in version for version in PINS.values()), "a +cpu or +cu ending would tie the file to one build of PyTorch"


def test_every_third_party_import_is_a_declared_dependency():
    modules = {"pyyaml": "yaml", "scikit-learn": "sklearn", "ipython": "IPython", "pillow": "PIL", "jupyter-client": "jupyter_client"}
    plain = {modules.get(_name(need.name), need.name.replace("-", "_")) for need in map(Requirement, PROJECT["dependencies"])}
    # What an extra brings.
    extras = {"classroom": {"nbconvert", "nbgrader", "psutil", "traitlets"}, "book": {"sphinx", "docutils", "tinycss2"}}
    for file in (*(ROOT / "support").rglob("*.py"), *(ROOT / "book").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        used = {name.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
        used |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
        more = extras["book"] if file.name.startswith("sphinx_") else extras["classroom"] if file.parent.name == "classroom" else set()
        more |= {"carry.py": {"coverage"}, "calibration.py": {"foolbox"}, "printed.py": {"playwright", "pypdf"}}.get(
            file.name, set()
        )  # for who has the tests' extra
        assert used <= {*sys.stdlib_module_names, *plain, "support"} | more, file


def test_the_conda_environment_installs_what_pyproject_offers():
    wanted = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    weights = {"imagenet"}  # a network of 18 MB, for who wants it
    extras = f".[{','.join(sorted(PROJECT['optional-dependencies'].keys() - weights))}]"
    assert sorted(extras[2:-1].split(",")) == ["book", "classroom", "tests"]
    tested = sorted(int(line.rpartition(".")[2]) for line in PROJECT["classifiers"] if ":: Python :: 3." in line)
    python, pip, given = wanted
    assert (python, pip) == (f"python >=3.{tested[0]},<3.{tested[-1] + 1}", "pip")
    install, options = given["pip"][1].removeprefix("-e "), given["pip"][0]
    assert options == "-c constraints.txt"
    assert sorted(install[2:-1].split(",")) == sorted(extras[2:-1].split(","))
    assert install in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_templates_are_part_of_the_package():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    others = {file for file in (ROOT / "support").rglob("*.*") if file.suffix not in (".py", ".pyc") and file.is_file()}
    packed = {file for pattern in tool["package-data"]["*"] for folder in (ROOT / "support").rglob("*") for file in folder.glob(pattern)}
    assert others == packed != set()


# --- files ------------------------------------------------------------------------------------------------------------------------


def test_ruff_finds_nothing():
    # PLW1514: no text is read or written as the locale would have it.
    for options in ([], ["--preview", "--select", "PLW1514", "support"]):
        command = [sys.executable, "-m", "ruff", "check", "--no-cache", *(options or ["."])]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        assert "All checks passed" in done.stdout


def test_no_tracked_file_knows_a_machine_or_a_registry():
    here = "|".join(re.escape(place) for place in {str(ROOT), str(Path.home()), sys.prefix} - {"/"})
    this_machine = re.compile(rf"(?<![\w.|])(?:{here})(?!\w)(?:[/\\]\w|$|[\"'\s])")
    any_machine = re.compile(r"(?<![\w.|/)])/(?:home|Users|root|work|opt)/\w|[A-Za-z]:\\Users\\|pythonhosted\.|\bpypi\.org|npmjs\.")
    files = [file for file in _tracked() if file.suffix not in (".png", ".safetensors", ".npz")]
    assert len(files) > 40
    found = []
    for file in files:
        patterns = [this_machine] if file.is_relative_to(ROOT / "tests") else [this_machine, any_machine]  # tests have made-up paths
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if '"image/png"' not in line and any(pattern.search(line) for pattern in patterns):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_no_tracked_file_is_large():
    assert [str(file) for file in _tracked() if file.stat().st_size > 5_000_000] == []


def test_what_the_texts_point_to_is_there():
    links = []
    for file in (*ROOT.glob("*.md"), *(ROOT / "book").glob("*.md")):
        text = file.read_text(encoding="utf-8")
        links += [(file, link.partition("#")[0]) for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)\s]+)\)", text)]
        named = re.findall(r"`((?:book|data|support|tests)/[\w./-]*[\w/]|[A-Z]+\.md|\w+\.(?:toml|yml|txt|cff))`", text)
        links += [(ROOT / "README.md", name) for name in named if "NN_" not in name and not name.startswith(("data/cache", "data/sets"))]
    assert len(links) > 10
    assert [(file.name, link) for file, link in links if not (file.parent / link).exists()] == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no executable bit")
def test_the_ci_script_can_run():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0


def test_the_references_are_sorted_and_whole():
    text = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    entries = re.findall(r"^@(\w+)\{(\w+),\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    keys = [key for _, key, _ in entries]
    assert len(keys) == text.count("\n@") > 20
    assert keys == sorted(keys)
    place = {"article": "journal", "inproceedings": "booktitle", "phdthesis": "school", "techreport": "institution", "misc": "note"}
    for kind, key, body in entries:
        assert {"author", "title", "year", place[kind]} <= set(re.findall(r"^\s*(\w+)\s*=", body, re.MULTILINE)), key
        assert key.endswith(re.search(r"year\s*=\s*\{(\d{4})\}", body)[1]), key


# --- notebooks --------------------------------------------------------------------------------------------------------------------


def _read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def _recorded() -> list[Path]:
    return sorted([*(ROOT / "book").glob("*/*.ipynb"), *(ROOT / "data" / "runs").glob("*/*/*.ipynb")])


def test_every_part_of_a_chapter_has_its_executed_pair_and_no_other_notebook_lies_there():
    wanted = [manifests.recorded_run(chapter, "quick", part) for chapter, part in PAIRS]
    assert sorted(wanted) == sorted((ROOT / "book").rglob("*.ipynb"))
    assert all(map(manifests.there, wanted))


@pytest.mark.parametrize("path", _recorded(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_recorded_notebook_was_executed_whole_and_in_order(path):
    cells = [cell for cell in _read(path).cells if cell.cell_type == "code"]
    assert len(cells) >= 3
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    assert len(json.dumps(outputs)) > 1000


@pytest.mark.parametrize(("chapter", "part"), PAIRS)
def test_the_committed_notebook_has_the_cells_of_its_source(chapter, part):
    source = jupytext.read(manifests.source_file(chapter, part))
    committed = _read(manifests.recorded_run(chapter, "quick", part))
    assert [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in committed.cells] == [
        (cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in source.cells
    ], f"run: python -m support run {chapter} --record"


@pytest.mark.parametrize("chapter", manifests.chapters())
def test_enough_of_a_chapter_is_compared_by_nbval(chapter):
    cells = [cell for part in manifests.parts(chapter) for cell in _read(manifests.recorded_run(chapter, "quick", part)).cells]
    tagged = [cell for cell in cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    exact = sum(claim.kind == "identity" for claim in claims.of_chapter(chapter))  # chapter 8 has none: all its numbers are trained
    assert len(tagged) >= min(3, 1 + exact)
    assert all(cell.outputs for cell in tagged)
