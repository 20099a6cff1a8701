"""Profiles: typed, bounded, frozen; whatever is not allowed is refused in one line."""

import re

import pytest
import tiny_book
from hypothesis import given
from hypothesis import strategies as st

from support.book import profiles
from support.book.profiles import ProfileError


@pytest.fixture(autouse=True)
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_ROOT", str(tiny_book.make(tmp_path)))
    return tmp_path


def refusal(call, *arguments) -> str:
    with pytest.raises(ProfileError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("size", profiles.SIZES)
def test_each_profile_has_the_values_of_its_column(size):
    profile, _ = profiles.load("01_tiny", size), profiles.load("01_tiny", "quick")  # each has its own name
    assert (profile.name, profile.chapter) == (size, "01_tiny")
    assert profile.steps == {"quick": 5, "standard": 50, "paper": 100}[size]
    assert profile.sizes == ((0.5, 1.0) if size == "quick" else (1.0,))


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("steps", 7, 7),
        ("rate", 1, 1.0),
        ("rate", 0.25, 0.25),
        ("sizes", [1, 2.5], (1.0, 2.5)),
        ("data", "mnist", "mnist"),
        ("wide", True, True),
    ],
)
def test_overrides_are_typed(field, value, expected):
    found = getattr(profiles.load("01_tiny", "quick", {field: value}), field)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 1.5), ("steps", "abc"), ("steps", True), ("steps", 0), ("steps", 101), ("steps", None), ("steps", [1]),
        ("rate", "0.1"), ("rate", False), ("rate", float("nan")), ("rate", float("inf")), ("rate", -0.1),
        ("sizes", []), ("sizes", 1.0), ("sizes", [1.0, "x"]), ("sizes", [-1.0]),
        ("data", "cifar10"), ("wide", 1), ("wide", "true"), ("seeds", 0), ("seeds", 10),
    ],
)  # fmt: skip
def test_impossible_values_are_refused_with_what_is_allowed(field, value):
    message = refusal(profiles.load, "01_tiny", "quick", {field: value})
    assert re.match(rf"{field}(\.\d)?: (Input|Tuple) should (be|have) ", message)
    assert profiles.sheet("01_tiny").fields[field].help in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("01_tiny", "quick", {"step": 3}), "did you mean steps?"),
        (("01_tiny", "standart"), "did you mean standard?"),
        (("01_tny",), "did you mean 01_tiny?"),
        (("../profiles/01_tiny",), "unknown chapter"),
        (("01_tiny", "quick", [("steps", 3)]), "overrides must map"),
    ],
)
def test_unknown_names_are_refused_with_near_ones(arguments, words):
    assert words in refusal(profiles.load, *arguments)


def test_a_profile_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        profiles.load("01_tiny").steps = 3


@pytest.mark.parametrize("seed", [-1, 2**31, 1.0, True, "1", None])
def test_what_is_no_seed_is_refused(seed):
    profiles.check_seed(0)
    profiles.check_seed(2**31 - 1)
    assert "wants an integer" in refusal(profiles.check_seed, seed)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("1.5", 1.5), ("1e-3", 0.001), ("-2", -2), ("010", 10), ("true", True), ("no", "no"), ("off", "off"), ("lenet", "lenet"),
        ("[0.1, 2]", [0.1, 2]), ("", None), ("1:30", "1:30"), ("a=b", "a=b"),
    ],
)  # fmt: skip
def test_values_on_the_command_line_are_read_as_plain_yaml(text, value):
    name, found = profiles.parse_override(f"field={text}")
    assert (name, found, type(found)) == ("field", value, type(value))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_survives_the_command_line(number):
    assert float(profiles.parse_override(f"field={number!r}")[1]) == number


@pytest.mark.parametrize("text", ["steps", "=3", "steps=[1", "steps={a: 1, a: 2}"])
def test_what_is_no_override_is_refused(text):
    assert "--set" in refusal(profiles.parse_override, text)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("  seeds: {type: int, min: 1,", "  seeds: {type: int,"), "seeds"),
        (("  seeds:", "  runs:"), "seeds"),
        (("type: int, min: 1, max: 100", "type: integer, min: 1, max: 100"), "fields.steps.type"),
        (("min: 1, max: 100", "min: 200, max: 100"), "fields.steps: quick: Input should be greater than or equal to 200, given 5"),
        (("standard: 50", "standard: 500"), "fields.steps: standard: Input should be less than or equal to 100, given 500"),
        (("paper: mnist", "paper: svhn"), "fields.data: paper: Input should be 'digits' or 'mnist', given 'svhn'"),
        (('help: "steps taken", ', ""), "fields.steps.help"),
        (("steps taken", "steps taken\", colour: \"red"), "fields.steps.colour"),
        (("standard: 50, ", ""), "fields.steps.standard"),
        (("choices: [digits, mnist]", "choices: []"), "fields.data.choices: List should have at least 1 item"),
        (("type: str, choices: [digits, mnist]", "type: str, min: 0"), "fields.data: min and max are for numbers"),
        (("  paper:    {minutes: 90, memory_gb: 8, disk_mb: 50}\n", ""), "no estimate for paper"),
        (("minutes: 90", "minutes: 0"), "estimate.paper.minutes"),
        (("  wide:", "  copy:"), "copy"),
        (("  wide:", "  steps:"), "key given twice: steps"),
        (("fields:", "fields: ["), "not YAML"),
    ],
)  # fmt: skip
def test_a_sheet_that_breaks_the_schema_is_refused(book, change, complaint):
    assert change[0] in tiny_book.PROFILE
    tiny_book.make(book, profile=tiny_book.PROFILE.replace(*change))
    message = refusal(profiles.sheet, "01_tiny")
    assert message.startswith("01_tiny.yml")
    assert complaint in message


def test_the_books_own_sheets_load_at_every_size(monkeypatch):
    monkeypatch.delenv("BOOK_ROOT")
    chapters = profiles.chapters()
    assert chapters
    for chapter in chapters:
        for size in profiles.SIZES:
            assert profiles.load(chapter, size).seeds >= 1
