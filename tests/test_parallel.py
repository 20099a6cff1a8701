"""Chapters side by side: which starts when, beside how many, and what an interruption leaves. The processes are played."""

import itertools
import subprocess

import pytest

from support.book import parallel


class Played:
    """A process that ends after some looks at it."""

    def __init__(self, name, looks, events):
        self.name, self.looks, self.events, self.returncode = name, looks, events, None
        events.append(f"+{name}")

    def poll(self):
        self.looks -= 1
        if self.looks < 0 and self.returncode is None:
            self.returncode = 1 if self.name.startswith("bad") else 0
            self.events.append(f"-{self.name}")
        return self.returncode

    def wait(self, timeout=None):
        if timeout is not None and self.name.startswith("deaf"):
            raise subprocess.TimeoutExpired(self.name, timeout)
        self.events.append(f"-{self.name}")

    def terminate(self):
        self.events.append(f"!{self.name}")


@pytest.fixture
def play(monkeypatch):
    """``play(needs, jobs, memory)`` runs chapters of (minutes, gigabytes), as many looks long as minutes; gives statuses and events."""
    events = []
    monkeypatch.setattr(parallel.time, "sleep", lambda _: None)

    def run(needs, jobs, memory_gb):
        monkeypatch.setattr(parallel, "_start", lambda words: Played(words[0], needs[words[0]][0], events))
        return parallel.run({name: [name] for name in needs}, needs, jobs, memory_gb), events

    run.events = events
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
    statuses, events = play(needs, jobs, memory)
    assert (" ".join(events), statuses) == (expected, dict.fromkeys(needs, 0))


def test_one_that_fails_does_not_stop_the_others(play):
    assert play({"bad": (9, 1), "good": (1, 1)}, 1, 9)[0] == {"bad": 1, "good": 0}


def test_interrupted_chapters_may_stop_by_themselves_before_they_are_made_to(play, monkeypatch):
    looks = itertools.count()

    def interrupted(_):
        if next(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(parallel.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        play({"good": (9, 1), "deaf": (8, 1), "late": (7, 1)}, 2, 9)
    assert play.events == ["+good", "+deaf", "-good", "!deaf", "-deaf"]


def test_memory_that_only_remembers_files_is_free(monkeypatch):
    told = "MemTotal:       24683532 kB\nMemFree:          100000 kB\nMemAvailable:   2097152 kB\n"
    monkeypatch.setattr(parallel.Path, "read_text", lambda *_, **__: told)
    assert parallel.free_memory_gb() == 2


def test_a_system_that_does_not_tell_has_memory(monkeypatch):
    def absent(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(parallel.Path, "read_text", absent)
    assert parallel.free_memory_gb() == float("inf")
