"""What every test runs with, and the check that a run of the whole suite did work in each of its lanes."""

import collections
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports torch. The notebooks' kernels inherit this too: their results are computed anew, without a bar.
_OWN_CACHE = "BOOK_CACHE" not in os.environ
if _OWN_CACHE:
    os.environ["BOOK_CACHE"] = tempfile.mkdtemp(prefix="book-tests-")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ["BOOK_PROGRESS"] = "off"
os.environ.pop("BOOK_OUTPUT", None)  # the book of each test has an output of its own

# Passed tests that a lane must have at the least. A lane is a file or folder; what no other lane names belongs to "kernels".
LANES = {
    "book/": 40, "tests/test_assignments.py": 50, "tests/test_book.py": 15, "tests/test_claims.py": 50, "tests/test_classroom.py": 60,
    "tests/test_house.py": 8, "tests/test_packaging.py": 15, "kernels": 300,
}  # fmt: skip


@contextlib.contextmanager
def book_at(root: Path) -> Iterator[Path]:
    """The package works on the book under ``root``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOK_ROOT", str(root))
        yield root


@pytest.fixture(scope="session")
def recorded(tmp_path_factory) -> Path:
    """The tiny book with its chapter recorded at quick and the table of verdicts written; not to be changed by a test."""
    import tiny_book

    from support.book import execute, verdict_table

    with book_at(tiny_book.make(tmp_path_factory.mktemp("recorded"))) as root:
        execute.execute(tiny_book.CHAPTER, record=True)
        verdict_table.write()
    return root


@pytest.fixture
def book(recorded, tmp_path, monkeypatch) -> Path:
    """A copy of that book, to be changed."""
    root = tmp_path / "book"
    shutil.copytree(recorded, root)
    monkeypatch.setenv("BOOK_ROOT", str(root))
    return root


@pytest.fixture(scope="session")
def whole() -> bool:
    """Whether every chapter of the contents has its folder; the tiny book stands in for a book that is not whole."""
    from support.book import publish
    from support.common import paths

    return all((paths.root() / f"{page}.py").is_file() or (paths.root() / f"{page}.md").is_file() for page in publish.pages())


@pytest.fixture(scope="session")
def built(tmp_path_factory, whole, request) -> tuple[Path, Path]:
    """The published book, built by the first process that wants it: its root, and the folder of its pages."""
    import tiny_book
    from filelock import FileLock

    from support.book import publish
    from support.common import paths

    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    out, root = shared / "site" / "book", paths.root() if whole else shared / "published" / "book"
    with FileLock(shared / "site.lock"):
        if not root.is_dir():
            shutil.copytree(request.getfixturevalue("recorded"), root)
            tiny_book.add_pages(root)
        with book_at(root):
            if not out.is_dir():
                assert publish.build(out) == (out / "index.html").as_uri()
    return root, out


@pytest.fixture
def site(built, monkeypatch) -> Path:
    """The pages of the published book, which is the book of the test."""
    monkeypatch.setenv("BOOK_ROOT", str(built[0]))
    return built[1]


@pytest.fixture(scope="module")
def soups(built):
    """Each page of the contents, parsed."""
    from bs4 import BeautifulSoup

    from support.book import publish

    with book_at(built[0]):
        files = {page: built[1] / f"{page}.html" for page in publish.pages()}
    return {page: BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser") for page, file in files.items()}


@pytest.fixture(scope="session")
def browser():
    """A Chromium; without one the tests are skipped, and fail where CI is set."""
    from support.book.printed import BROWSERS, QUIET

    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None and not os.environ.get("CI"):
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the PATH")
    assert program, "CI needs a browser: apt-get install chromium"
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=QUIET)
        yield found
        found.close()


@pytest.fixture
def look(browser, site):
    """``look(page)`` opens a page of the published book for the test."""
    from in_browser import opened

    with contextlib.ExitStack() as stack:
        yield lambda page, to="", **options: stack.enter_context(opened(browser, site / f"{page}.html", to, **options))


class Lanes:
    """Counts what passed. A plugin, because pytest calls the hooks of this file for the tests of this folder only."""

    def __init__(self, config: pytest.Config) -> None:
        self.passed: collections.Counter = collections.Counter()
        narrowed = config.option.keyword or config.option.markexpr or config.option.collectonly
        self.whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not narrowed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed[next((lane for lane in LANES if report.nodeid.startswith(lane)), "kernels")] += 1

    def empty(self) -> list[str]:
        """Lanes of a whole run that did too little."""
        found = {lane: (self.passed[lane], least) for lane, least in LANES.items() if self.whole}
        return [f"{lane}: {passed} passed, {least} expected" for lane, (passed, least) in found.items() if passed < least]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK and self.empty():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self.empty():
            terminalreporter.write_line(f"EMPTY LANE {line}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Lanes(config), "lanes")


def pytest_unconfigure(config: pytest.Config) -> None:
    if _OWN_CACHE and not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ["BOOK_CACHE"], ignore_errors=True)
