"""The claims registry, its rules, and the verdicts that follow; intervals against scipy."""

import math

import numpy as np
import pytest
import tiny_book
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from scipy import stats

from support.book import claims
from support.book.claims import Claim, ClaimError, judge

RULES = TypeAdapter(claims.Rule)


def claim(*rules: dict, kind: str = "empirical", smallest: str = "quick", survives: tuple[dict, ...] = (), **more) -> Claim:
    return Claim.model_validate(
        {
            "id": "tiny2020.one",
            "kind": kind,
            "where": "Table 1",
            "says": "It holds.",
            "rules": rules,
            "survives_rules": survives,
            "smallest": smallest,
        }
        | more
    )


def status(rule: dict, profile: str = "quick", **measured) -> str:
    (outcome,) = judge(claim(rule), measured, profile).rows
    return outcome.status


INTERVAL = {"type": "interval", "value": "a", "low": 0.4, "high": 0.6}
ORDERING = {"type": "ordering", "values": ["a", "b"], "gap": 0.1}
RATIO = {"type": "ratio", "numerator": "a", "denominator": "b", "low": 2.0}
MAX_ABS = {"type": "max_abs", "value": "a", "tolerance": 1e-9}


# --- intervals --------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8))
def test_the_interval_over_runs_is_students(values):
    found = claims.interval(values)
    if np.ptp(values) > 1e-6:
        low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        assert found.low == pytest.approx(low, abs=1e-9)
        assert found.high == pytest.approx(high, abs=1e-9)
    assert found.mean == pytest.approx(sum(values) / len(values), abs=1e-9)


def test_a_single_run_has_no_interval():
    assert claims.interval([0.3]) == (0.3, None, None, 1)
    assert claims.ratio_interval([3.0], [2.0]) == (1.5, None, None, 1)


def test_fiellers_bounds_are_where_the_paired_test_turns():
    rng = np.random.default_rng(0)
    for _ in range(20):
        bottom = rng.normal(1.0, 0.05, 5)
        top = 2 * bottom + rng.normal(0, 0.1, 5)
        found = claims.ratio_interval(top, bottom)
        assert found.low < found.mean < found.high
        for bound in (found.low, found.high):
            assert stats.ttest_1samp(top - bound * bottom, 0.0).pvalue == pytest.approx(0.05, abs=1e-9)


def test_a_denominator_that_may_be_zero_leaves_the_ratio_unbounded():
    assert claims.ratio_interval([1.0, 1.1], [0.3, -0.2])[1:3] == (-math.inf, math.inf)
    assert claims.ratio_interval([1.0], [0.0]).mean == math.inf


# --- rules ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "measured", "expected"),
    [
        (INTERVAL, {"a": 0.5}, "pass"),
        (INTERVAL, {"a": 0.4}, "pass"),
        (INTERVAL, {"a": 0.6}, "pass"),
        (INTERVAL, {"a": 0.39}, "fail"),
        (INTERVAL, {"a": 0.61}, "fail"),
        (INTERVAL, {"a": [0.49, 0.5, 0.51]}, "pass"),
        (INTERVAL, {"a": [0.39, 0.5, 0.61]}, "undecided"),
        (INTERVAL, {"a": [0.1, 0.11, 0.12]}, "fail"),
        (INTERVAL, {"a": [0.3, 0.39, 0.41]}, "undecided"),
        (INTERVAL, {"a": [0.4, 0.4, 0.4]}, "pass"),
        ({"type": "interval", "value": "a", "low": 0.1}, {"a": [0.1] * 7}, "pass"),
        ({"type": "interval", "value": "a", "high": 0.0}, {"a": -5}, "pass"),
        (ORDERING, {"a": 0.6, "b": 0.5}, "fail"),  # 0.6 - 0.5 is below 0.1 in floating point
        (ORDERING, {"a": 0.75, "b": 0.5}, "pass"),
        (ORDERING, {"a": 0.55, "b": 0.5}, "fail"),
        (ORDERING, {"a": [0.9, 0.5, 0.7], "b": [0.7, 0.3, 0.5]}, "pass"),  # the runs differ, their differences do not
        (ORDERING, {"a": [0.9, 0.5, 0.7], "b": [0.3, 0.7, 0.5]}, "undecided"),
        ({"type": "ordering", "values": ["a", "b", "c"]}, {"a": 3, "b": 2, "c": 2}, "pass"),
        ({"type": "ordering", "values": ["a", "b", "c"]}, {"a": 3, "b": 2, "c": 4}, "fail"),
        (RATIO, {"a": 0.4, "b": 0.2}, "pass"),
        (RATIO, {"a": 0.39, "b": 0.2}, "fail"),
        (RATIO, {"a": 0.4, "b": 0.0}, "pass"),
        (RATIO, {"a": 0.0, "b": 0.0}, "undecided"),
        (RATIO, {"a": [0.4, 0.45, 0.5], "b": [0.0, 0.0, 0.0]}, "pass"),
        (RATIO | {"high": 3.0}, {"a": 0.4, "b": 0.0}, "fail"),
        (RATIO, {"a": [0.9, 0.4], "b": [0.2, 0.3]}, "undecided"),
        (RATIO, {"a": [0.8, 0.9], "b": 0.1}, "pass"),
        (MAX_ABS, {"a": 1e-10}, "pass"),
        (MAX_ABS, {"a": -1e-8}, "fail"),
        (MAX_ABS, {"a": [0.0, 0.0, 1e-8]}, "fail"),  # no averaging away
        (MAX_ABS | {"tolerance": 0}, {"a": 0}, "pass"),
        (MAX_ABS | {"tolerance": 0}, {"a": 1}, "fail"),
    ],
)
def test_rules(rule, measured, expected):
    assert status(rule, **measured) == expected


@pytest.mark.parametrize("absent", [None, [], float("nan"), float("inf"), [0.5, None], [0.5, float("nan")]])
def test_what_was_not_measured_is_not_run(absent):
    found = judge(claim(INTERVAL), {"a": absent}, "quick")
    assert (found.verdict, found.rows[0].status) == ("not run", "missing")
    assert judge(claim(INTERVAL), {}, "quick").verdict == "not run"


def test_arrays_and_scalars_of_numpy_are_numbers():
    assert status(INTERVAL, a=np.float32(0.5)) == "pass"
    assert status(INTERVAL, a=np.array([0.5, 0.5])) == "pass"


@pytest.mark.parametrize(
    ("rule", "measured", "complaint"),
    [
        (INTERVAL, {"a": "0.5"}, "a must be a number"),
        (INTERVAL, {"a": [0.5, "x"]}, "a must be a number"),
        (INTERVAL, {"a": [[0.5]]}, "a must be a number"),
        (INTERVAL, {"b": 0.5}, "its rules want a beside b"),
        (ORDERING, {"a": 0.5}, "its rules want b beside a"),
        (ORDERING, {"a": [1, 2, 3], "b": [1, 2]}, "same number of runs"),
        (RATIO, {"a": 1.0, "b": -1.0}, "below zero"),
    ],
)
def test_measurements_that_do_not_fit_the_rules_are_refused(rule, measured, complaint):
    with pytest.raises(ClaimError, match=complaint):
        judge(claim(rule), measured, "quick")


# --- verdicts ---------------------------------------------------------------------------------------------------------------------

BOTH = ({"type": "interval", "value": "a", "low": 0.5}, {"type": "interval", "value": "b", "low": 0.5})


@pytest.mark.parametrize(
    ("kind", "a", "b", "verdict"),
    [
        ("empirical", 1, 1, "reproduced"), ("empirical", 1, 0, "partly"), ("empirical", 0, 0, "not reproduced"),
        ("empirical", None, 1, "not run"),
        ("empirical", [0.2, 0.9], 1, "partly"), ("empirical", [0.2, 0.9], 0, "partly"),
        ("identity", 1, 1, "reproduced"), ("identity", 0, 0, "refuted"), ("identity", 1, 0, "partly"), ("open", 0, 0, "not reproduced"),
    ],
)  # fmt: skip
def test_verdicts(kind, a, b, verdict):
    found = judge(claim(*BOTH, kind=kind), {"a": a, "b": b}, "quick")
    assert (found.verdict, found.direction, found.survives) == (verdict, "", "")


@pytest.mark.parametrize(("a", "b", "direction"), [(1, 1, "towards"), (1, 0, "mixed"), (0, 0, "away"), ([0.2, 0.9], 1, "mixed")])
@pytest.mark.parametrize(("profile", "smallest"), [("quick", "standard"), ("quick", "paper"), ("standard", "paper")])
def test_a_profile_below_the_smallest_only_points(a, b, direction, profile, smallest):
    found = judge(claim(*BOTH, smallest=smallest), {"a": a, "b": b}, profile)
    assert (found.verdict, found.direction) == ("scaled-down", direction)
    assert judge(claim(*BOTH, smallest=smallest), {"a": a, "b": b}, smallest).verdict != "scaled-down"
    assert judge(claim(*BOTH, smallest=smallest), {}, profile).verdict == "not run"


@pytest.mark.parametrize(
    ("modern", "survives"),
    [
        ({"c": 1, "d": 1}, "survives"),
        ({"c": 1, "d": 0}, "weakened"),
        ({"c": 0, "d": 0}, "broken"),
        ({"c": 0, "d": None}, "not run"),
        (None, "not run"),
    ],
)
def test_the_second_question(modern, survives):
    rules = ({"type": "interval", "value": "c", "low": 0.5}, {"type": "interval", "value": "d", "low": 0.5})
    found = judge(claim(INTERVAL, kind="robustness", survives=rules), {"a": 0.5}, "quick", modern)
    assert (found.verdict, found.survives) == ("reproduced", survives)


def test_modern_measurements_need_a_second_question():
    with pytest.raises(ClaimError, match="no survives_rules"):
        judge(claim(INTERVAL), {"a": 0.5}, "quick", {"c": 1})


def test_one_name_has_one_value():
    second = {"type": "interval", "value": "a", "low": 0.5}
    robust = claim(INTERVAL, kind="robustness", survives=(second,))
    assert judge(robust, {"a": 0.5}, "quick", {"a": 0.5}).survives == "survives"
    with pytest.raises(ClaimError, match="give them two names"):
        judge(robust, {"a": 0.5}, "quick", {"a": 0.1})


# --- rendering --------------------------------------------------------------------------------------------------------------------


def test_the_text_of_an_identity_does_not_depend_on_the_machine():
    identity = claim(MAX_ABS, kind="identity", published={"a": 0})
    texts = {claims.render(identity, judge(identity, {"a": error}, "quick")) for error in (0.0, 3e-13, [1e-10, -9e-10])}
    assert len(texts) == 1
    assert "a ≤ 1e-09" in texts.pop().text


def test_a_row_shows_published_and_measured_numbers_with_their_interval():
    shown = claim(INTERVAL, published={"a": 0.55, "paper_only": 3})
    row = claims.render(shown, judge(shown, {"a": [0.49, 0.5, 0.51], "beside": 12}, "quick"))
    low, high = stats.ttest_1samp([0.49, 0.5, 0.51], 0.0).confidence_interval(0.95)
    measured = ("a = 0.55", "paper_only = 3", f"a = 0.5 [{low:.4g}, {high:.4g}]", "0.4 to 0.6", "beside = 12")
    for text in (row.text, row.html):
        for part in ("tiny2020.one", "Table 1", "reproduced", *measured):
            assert part.replace("_", " ") in text.replace("_", " ")
    assert "protocol" not in row.html + row.text


def test_a_scaled_down_row_says_where_it_points_and_what_is_true():
    rule = {"type": "interval", "value": "c", "low": 0.5}
    robust = claim(INTERVAL, kind="robustness", smallest="paper", survives=(rule,), corrected="It is <otherwise>.")
    row = claims.render(robust, judge(robust, {"a": 0.1}, "quick", {"c": 0.1}))
    for text in (row.text, row.html):
        assert "scaled-down" in text
        assert "points away from the paper" in text
        assert "broken" in text
        assert "at this size" in text
    assert "It is &lt;otherwise&gt;." in row.html


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return sum(
        w * (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4) for w, p in zip((0.2126, 0.7152, 0.0722), parts, strict=True)
    )


@pytest.mark.parametrize("word", [*claims.VERDICTS, *claims.SURVIVALS])
def test_every_verdict_has_a_sign_and_a_readable_colour(word):
    sign, colour = claims._LOOKS[word]
    assert f"{sign} {word}" in claims.badge(word)
    assert 1.05 / (_luminance(colour) + 0.05) >= 4.5  # white letters, WCAG AA


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.99997, "1 - 3e-05"),
        (0.9999, "0.9999"),
        (1.00001, "1"),
        (0.0, "0"),
        (3.0, "3"),
        (0.12345, "0.1235"),
        (123456.0, "123456"),
        (1e-12, "1e-12"),
        (2.5e8, "2.5e+08"),
        (-0.5, "-0.5"),
    ],
)
def test_numbers_are_short(value, text):
    assert claims.number(value) == text


def test_plain_measurements_are_json():
    assert claims.plain({"a": 1, "b": [1.5, None], "c": float("nan"), "d": np.array([2.0]), "e": None}) == {
        "a": [1.0], "b": [1.5, None], "c": [None], "d": [2.0], "e": [None],
    }  # fmt: skip
    assert claims.plain(None) == {}


# --- the registry -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_ROOT", str(tiny_book.make(tmp_path)))
    return tmp_path


def test_the_registry_finds_claims(book):
    paper, found = claims.find("tiny2020.table1")
    assert (paper.key, found.kind, paper.chapter_of(found)) == ("tiny2020", "robustness", "01_tiny")
    assert [one.id for one in claims.of_chapter("01_tiny")] == ["tiny2020.thm1", "tiny2020.table1"]
    with pytest.raises(ClaimError, match=r"did you mean tiny2020\.thm1"):
        claims.find("tiny2020.thm2")
    with pytest.raises(ClaimError, match=r"no paper 'tony2020'.*did you mean tiny2020"):
        claims.load("tony2020")


def test_a_table_of_several_data_sets_has_a_claim_for_each(book):
    tiny_book.make(book, claims=tiny_book.CLAIMS.replace("tiny2020.table1", "tiny2020.table1.cifar10"))
    assert claims.find("tiny2020.table1.cifar10")[0].key == "tiny2020"


def test_a_claim_can_belong_to_another_chapter_than_its_paper(book):
    tiny_book.make(book, claims=tiny_book.CLAIMS.replace("    where: Theorem 1\n", "    where: Theorem 1\n    chapter: 02_next\n"))
    assert [one.id for one in claims.of_chapter("02_next")] == ["tiny2020.thm1"]
    assert [one.id for one in claims.of_chapter("01_tiny")] == ["tiny2020.table1"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("id: tiny2020.table1", "id: tiny2020.thm1"), "ids given twice: tiny2020.thm1"),
        (("id: tiny2020.table1", "id: other2020.table1"), "do not start with tiny2020"),
        (("id: tiny2020.table1", "id: tiny2020.Table 1"), "claims.1.id"),
        (("id: tiny2020.table1", "id: tiny2020.table1."), "claims.1.id"),
        (("key: tiny2020", "key: other2020"), "do not start with other2020"),
        (("kind: robustness", "kind: empirical"), "survives_rules are for robustness claims"),
        (("    survives_rules: [{type: interval, value: worst, low: 0.5}]\n", ""), "survives_rules are for robustness claims"),
        (("kind: identity", "kind: theorem"), "claims.0.kind"),
        (("smallest: quick", "smallest: small"), "claims.0.smallest"),
        (("type: max_abs, value: error, tolerance: 1.0e-9", "type: near, value: error"), "claims.0.rules.0"),
        (("tolerance: 1.0e-9", "tolerance: -1"), "tolerance"),
        (("tolerance: 1.0e-9", "tolerance: 1.0e-9, low: 1"), "low"),
        (("value: accuracy, low: 0.8", "value: accuracy, low: 0.8, high: 0.7"), "low <= high"),
        (("value: accuracy, low: 0.8", "value: accuracy"), "at least one of them finite"),
        (("value: accuracy, low: 0.8", "value: Accuracy %, low: 0.8"), "value"),
        (("published: {error: 0}", "published: {error: none}"), "published"),
        (("rules: [{type: max_abs, value: error, tolerance: 1.0e-9}]", "rules: []"), "rules"),
        (("    says: \"Two times two is four.\"\n", ""), "says"),
        (("    where: Theorem 1\n", "    where: Theorem 1\n    place: there\n"), "place"),
        (("    where: Theorem 1\n", "    where: Theorem 1\n    where: Theorem 2\n"), "key given twice"),
    ],
)  # fmt: skip
def test_a_registry_that_breaks_the_schema_is_refused_in_one_line(book, change, complaint):
    assert change[0] in tiny_book.CLAIMS
    tiny_book.make(book, claims=tiny_book.CLAIMS.replace(*change))
    with pytest.raises(ClaimError, match=r"tiny2020\.yml") as caught:
        claims.load("tiny2020")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_file_bears_the_papers_key(book):
    (book / "data" / "claims" / "tiny2020.yml").rename(book / "data" / "claims" / "tiny2021.yml")
    with pytest.raises(ClaimError, match=r"paper.key is tiny2020, but the file is named tiny2021"):
        claims.load("tiny2021")


def test_the_books_own_registry_loads_and_has_claims(monkeypatch):
    monkeypatch.delenv("BOOK_ROOT", raising=False)
    papers = claims.registry()
    assert "hess2020" in papers
    assert all(len(paper.claims) >= 10 for paper in papers.values())
