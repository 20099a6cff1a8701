"""The small part of the fault suite (``make faults`` has all of it), and that its runner notices what goes wrong."""

import dataclasses

import faults
import pytest

SMALL = [fault for fault in faults.FAULTS if fault.small]


@pytest.mark.parametrize("fault", SMALL, ids=lambda fault: fault.name)
def test_what_a_machine_does_is_told_and_nothing_is_lost(fault, recorded, tmp_path):
    try:
        seen = faults.meet(fault, recorded, tmp_path)
    except faults.Absent as reason:
        pytest.skip(str(reason))
    assert seen.as_wanted, seen.line
    assert seen.lost == "nothing"


def _removed(place):
    place.file("_build/runs/quick/01_tiny/lesson.json").unlink()


def _other(place):
    file = place.file("data/runs/quick/01_tiny/evidence.json")
    file.write_text(file.read_text(encoding="utf-8").replace('"steps": 5', '"steps": 6'), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "as_wanted", "lost"),
    [
        ({}, True, "nothing"),
        ({"code": 1}, False, "nothing"),
        ({"seen": "02_other"}, False, "nothing"),
        ({"command": ("diff", "a.json")}, False, "nothing"),
        ({"inject": _removed}, True, "_build/runs/quick/01_tiny/lesson.json"),
        ({"inject": _other}, True, "data/runs/quick/01_tiny/evidence.json"),
    ],
)
def test_the_runner_notices_what_goes_wrong(recorded, tmp_path, changes, as_wanted, lost):
    whole = faults.Fault("nothing", "01_tiny: Tiny", command=("list",))
    seen = faults.meet(dataclasses.replace(whole, **changes), recorded, tmp_path)
    assert (seen.as_wanted, seen.lost) == (as_wanted, lost)
