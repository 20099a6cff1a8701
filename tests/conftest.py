"""What every test runs with, and the check that a run of the whole suite did work in each of its lanes."""

import collections
import os
import shutil
import tempfile

import pytest

# Before anything imports torch. The notebooks' kernels inherit this too: their results are computed anew, without a bar.
_OWN_CACHE = "BOOK_CACHE" not in os.environ
if _OWN_CACHE:
    os.environ["BOOK_CACHE"] = tempfile.mkdtemp(prefix="book-tests-")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ["BOOK_PROGRESS"] = "off"

# Passed tests that a lane must have at the least. A lane is a file or folder; what no other lane names belongs to "kernels".
LANES = {
    "book/": 40, "tests/test_assignments.py": 50, "tests/test_book.py": 15, "tests/test_claims.py": 50, "tests/test_classroom.py": 60,
    "tests/test_packaging.py": 15, "kernels": 300,
}  # fmt: skip


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
