"""Chapters side by side: which starts when, beside how many, and what an interruption leaves. The clock is played."""

import threading
from collections import namedtuple
from concurrent.futures import Future

import pytest

from support.book import parallel


@pytest.fixture
def play(monkeypatch):
    """``play(needs, jobs, memory)`` carries out tasks of (minutes, gigabytes) on a clock of its own; gives names in the order in which they
    end and all events. A name that begins with bad fails; ``play.interrupted_at`` is the minute of a Ctrl-C."""
    events, clock, ends = [], [0], {}

    class Pool:
        def __init__(self, most):
            self.most = most

        def __enter__(self):
            return self

        def __exit__(self, *_):
            events.append("closed")

        def submit(self, call, *given):
            name, minutes = call(*given)
            events.append(f"+{name}")
            future = Future()
            ends[future] = (clock[0] + minutes, name)
            assert sum(not known.done() for known in ends) <= self.most
            return future

    def wait(running, timeout=None, return_when=None):
        if timeout is not None:  # the first to be stopped was between two processes
            return namedtuple("Waited", "not_done")(running if events.count("stopped") < 2 else set())
        ended = min(running, key=lambda future: ends[future][0])
        clock[0], name = ends[ended]
        if clock[0] >= run.interrupted_at:
            raise KeyboardInterrupt
        events.append(f"-{name}")
        ended.set_exception(RuntimeError(name)) if name.startswith("bad") else ended.set_result(name)
        return namedtuple("Waited", "done")({ended})

    monkeypatch.setattr(parallel, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(parallel, "wait", wait)

    def run(needs, jobs, memory_gb):
        tasks = {name: lambda name=name: (name, needs[name][0]) for name in needs}
        return list(parallel.run(tasks, needs, jobs, memory_gb, lambda: events.append("stopped")))

    run.events, run.interrupted_at = events, float("inf")
    return run


@pytest.mark.parametrize(
    ("needs", "jobs", "memory", "expected"),
    [
        ({"a": (1, 1), "b": (9, 1), "c": (5, 1)}, 1, 9, "+b -b +c -c +a -a"),  # the longest first
        ({"a": (1, 1), "b": (9, 1), "c": (5, 1)}, 2, 9, "+b +c -c +a -a -b"),
        ({"a": (3, 1), "b": (9, 1), "c": (5, 1)}, 5, 9, "+b +c +a -a -c -b"),
        ({"a": (1, 4), "b": (9, 4), "c": (5, 4)}, 3, 8, "+b +c -c +a -a -b"),  # no room for three
        ({"a": (1, 2), "b": (9, 6), "c": (5, 6)}, 3, 8, "+b +a -a -b +c -c"),  # a small one may overtake
        ({"a": (1, 99), "b": (2, 99)}, 2, 8, "+b -b +a -a"),  # one that never fits runs alone
        ({}, 2, 8, ""),
    ],
)
def test_the_longest_starts_first_beside_as_many_as_there_is_room_for(play, needs, jobs, memory, expected):
    ended = play(needs, jobs, memory)
    assert play.events == [*expected.split(), "closed"]
    assert [(name, future.result()) for name, future in ended] == [(e[1:], e[1:]) for e in expected.split() if e[0] == "-"]


def test_one_that_fails_does_not_stop_the_others(play):
    (bad, failed), (good, done) = play({"bad": (9, 1), "good": (1, 1)}, 1, 9)
    assert (bad, str(failed.exception()), good, done.result()) == ("bad", "bad", "good", "good")


def test_an_interruption_stops_what_runs_and_starts_nothing(play):
    play.interrupted_at = 8
    with pytest.raises(KeyboardInterrupt):
        play({"a": (9, 1), "b": (8, 1), "c": (7, 1)}, 2, 9)
    assert play.events == ["+a", "+b", "stopped", "stopped", "closed"]


def test_an_interruption_stops_a_process_that_was_only_coming():
    interrupted, processes, ends = threading.Event(), [], []

    def slow():
        interrupted.wait(60)
        processes.append(threading.Event())
        ends.append(processes[0].wait(60))

    def stop():
        for process in processes:
            process.set()
        interrupted.set()

    needs = dict.fromkeys(("quick", "slow"), (1, 1))
    running = parallel.run({"quick": lambda: None, "slow": slow}, needs, 2, 9, stop)
    assert next(running)[0] == "quick"
    with pytest.raises(KeyboardInterrupt):
        running.throw(KeyboardInterrupt)
    assert ends == [True]


def test_memory_that_only_remembers_files_is_free(monkeypatch):
    told = "MemTotal:       24683532 kB\nMemFree:          100000 kB\nMemAvailable:   2097152 kB\n"
    monkeypatch.setattr(parallel.Path, "read_text", lambda *_, **__: told)
    assert parallel.free_memory_gb() == 2


def test_a_system_that_does_not_tell_has_memory(monkeypatch):
    def absent(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(parallel.Path, "read_text", absent)
    assert parallel.free_memory_gb() == float("inf")
