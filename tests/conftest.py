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
LANES = {"book/": 30, "tests/test_book.py": 12, "tests/test_claims.py": 10, "tests/test_packaging.py": 10}
KERNELS = 100
_passed: collections.Counter = collections.Counter()


def _lane(nodeid: str) -> str:
    return next((lane for lane in LANES if nodeid.startswith(lane)), "kernels")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        _passed[_lane(report.nodeid)] += 1


def _empty_lanes(config: pytest.Config) -> list[str]:
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not (config.option.keyword or config.option.markexpr)
    if not whole or config.option.collectonly or hasattr(config, "workerinput"):
        return []
    wanted = LANES | {"kernels": KERNELS}
    return [f"{lane}: {_passed[lane]} tests passed, {least} expected" for lane, least in wanted.items() if _passed[lane] < least]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and _empty_lanes(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in _empty_lanes(config):
        terminalreporter.write_line(f"EMPTY LANE {line}", red=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    if _OWN_CACHE and not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ["BOOK_CACHE"], ignore_errors=True)
