"""The claims registry, the verdicts that follow from its rules, and how a row looks."""

import numpy as np
import pytest
import tiny_book
from bs4 import BeautifulSoup

from support.book import claims, manifests, markup, profiles, rules
from support.book.claims import Claim, ClaimError, judge
from support.sampling import Difference, Estimate, Share


def exemplified(rule: dict) -> dict:
    """A rule with the examples that the schema wants; what they say is of no matter here."""
    example = {name: 0 for name in rule.get("values", [rule.get("value")])}
    return {"passes": example, "fails": example} | rule


def claim(*rules: dict, survives: tuple[dict, ...] = (), **more) -> Claim:
    usual = {"id": "tiny2020.one", "kind": "empirical", "where": "Table 1", "says": "It holds.", "smallest": "quick"}
    both = {"rules": [*map(exemplified, rules)], "survives_rules": [*map(exemplified, survives)]}
    return Claim.model_validate(usual | both | more)


INTERVAL = {"type": "interval", "value": "a", "low": 0.4, "high": 0.6}
MAX_ABS = {"type": "max_abs", "value": "a", "tolerance": 1e-9}


# --- verdicts ---------------------------------------------------------------------------------------------------------------------

BOTH = ({"type": "interval", "value": "a", "low": 0.5}, {"type": "interval", "value": "b", "low": 0.5})


@pytest.mark.parametrize(
    ("kind", "a", "b", "verdict"),
    [
        ("empirical", 1, 1, "reproduced"), ("empirical", 1, 0, "partly"), ("empirical", 0, 0, "not reproduced"),
        ("empirical", None, 1, "not run"), ("empirical", None, 0, "not run"),
        ("empirical", [0.2, 0.9], 1, "undecided"), ("empirical", [0.2, 0.9], 0, "undecided"),
        ("empirical", [0.2, 0.9], [0.2, 0.9], "undecided"), ("empirical", Share(11, 20), 1, "undecided"),
        ("identity", 1, 1, "reproduced"), ("identity", 0, 0, "refuted"), ("identity", 1, 0, "partly"),
        ("question", 1, 1, "yes"), ("question", 0, 0, "no"), ("question", 1, 0, "undecided"), ("question", [0.2, 0.9], 0, "undecided"),
        ("question", None, 0, "not run"),
    ],
)  # fmt: skip
def test_verdicts(kind, a, b, verdict):
    found = judge(claim(*BOTH, kind=kind), {"a": a, "b": b}, "quick")
    assert (found.verdict, found.direction, found.survives) == (verdict, "", "")


@pytest.mark.parametrize(("a", "b", "direction"), [(1, 1, "towards"), (1, 0, "mixed"), (0, 0, "away"), ([0.2, 0.9], 1, "undecided")])
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
        ({"c": [0.2, 0.9], "d": 0}, "undecided"),
        ({"c": [0.2, 0.9], "d": 1}, "undecided"),
        ({"c": 0, "d": None}, "not run"),
        (None, "not run"),
    ],
)
def test_the_second_question(modern, survives):
    rules = ({"type": "interval", "value": "c", "low": 0.5}, {"type": "interval", "value": "d", "low": 0.5})
    found = judge(claim(INTERVAL, kind="robustness", survives=rules), {"a": 0.5}, "quick", modern)
    assert (found.verdict, found.survives) == ("reproduced", survives)


def test_what_the_rules_name_is_given_or_said_to_be_missing():
    assert judge(claim(INTERVAL), {}, "quick").verdict == judge(claim(INTERVAL), {"a": None}, "quick").verdict == "not run"
    with pytest.raises(ClaimError, match="its rules want a beside b; give None"):
        judge(claim(INTERVAL), {"b": 0.5}, "quick")


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
    measured = ("paper_only = 3", "a = 0.5 [0.49, 0.51]", "0.4 to 0.6", "beside = 12")
    for text in (row.text, row.html):
        for part in ("tiny2020.one", "Table 1", "reproduced", *measured):
            assert part.replace("_", " ") in text.replace("_", " ")
    assert "a = 0.55" in row.text
    assert '<th scope="row">a</th><td>0.55</td><td>0.5 [0.49, 0.51]</td>' in row.html
    assert row.html.count("<tr>") == 2, "only what is both published and measured stands in the table"
    assert "protocol" not in row.html + row.text


def test_a_row_without_a_published_number_has_no_table():
    unpublished = claim(INTERVAL)
    assert "<table" not in claims.render(unpublished, judge(unpublished, {"a": 0.5}, "quick")).html


def test_a_formula_of_a_statement_is_set_and_the_rest_is_escaped():
    stated = claim(INTERVAL, says="If $a < b$ then x < y.")
    row = claims.render(stated, judge(stated, {"a": 0.5}, "quick"))
    assert r'If <span class="math notranslate nohighlight">\(a &lt; b\)</span> then x &lt; y.' in row.html


def test_every_formula_of_the_registry_is_closed():
    texts = [text for one in EVERY.values() for text in (one.says, one.remark, one.erratum.text if one.erratum else "")]
    assert sum("$" in text for text in texts) > 50
    assert [text for text in texts if text.count("$") % 2] == []


def test_a_scaled_down_row_says_where_it_points_and_what_is_true():
    rule = {"type": "interval", "value": "c", "low": 0.5}
    erratum = {"text": "It is <otherwise>.", "shown_by": "tests/test_claims.py::test_verdicts"}
    robust = claim(INTERVAL, kind="robustness", smallest="paper", survives=(rule,), erratum=erratum, remark="It is <small>.")
    row = claims.render(robust, judge(robust, {"a": 0.1}, "quick", {"c": 0.1}))
    for text in (row.text, row.html):
        assert "scaled-down" in text
        assert "points away from the paper" in text
        assert "broken" in text
        assert "at this size" in text
        assert "tests/test_claims.py::test_verdicts" in text
    assert "It is &lt;otherwise&gt;." in row.html
    assert "It is &lt;small&gt;." in row.html


def test_a_row_counts_its_rules_where_they_do_not_agree():
    rules = [{"type": "interval", "value": name, "low": 0.5} for name in "abcde"]
    several = claim(*rules)
    row = claims.render(several, judge(several, {"a": 1, "b": 1, "c": 0, "d": Share(1, 2), "e": [0, 1]}, "quick"))
    assert "2 of 5 rules hold, 1 fails, 2 undecided" in row.text
    assert "2 of 5 rules hold, 1 fails, 2 undecided" in row.html
    assert "rules hold" not in claims.render(several, judge(several, dict.fromkeys("abcde", 1), "quick")).text


def test_a_null_stands_in_the_row_beside_its_number():
    null = claim(INTERVAL, nulls={"a": "untrained"})
    row = claims.render(null, judge(null, {"a": 0.5, "untrained": [0.41, 0.43]}, "quick"))
    assert row.text.count("a: without an effect untrained = 0.42 [0.41, 0.43]") == row.text.count("untrained") == 1
    assert "untrained = not measured" in claims.render(null, judge(null, {"a": 0.5}, "quick")).text


def test_a_question_points_to_an_answer():
    asked = claim(INTERVAL, kind="question", smallest="paper")
    assert [judge(asked, {"a": a}, "quick").points for a in (0.5, 0.1, Share(9, 20))] == [
        "points to yes",
        "points to no",
        "undecided at this size",
    ]


def test_a_number_outside_its_range_is_refused():
    share = claim(INTERVAL, ranges={"a": [0, 1]})
    assert judge(share, {"a": [0, 1]}, "quick").verdict == "not reproduced"
    with pytest.raises(ClaimError, match=r"a lies in 0 to 1; given 1\.2"):
        judge(share, {"a": [0.5, 1.2]}, "quick")


def test_shares_over_the_same_images_are_judged_by_their_pairs_now_and_from_the_record():
    masks = [np.arange(100) < 60, np.arange(100) < 50]
    first, second = (Share(int(mask.sum()), 100, mask) for mask in masks)
    ordered = claim({"type": "ordering", "values": ["a", "b"]})
    found = judge(ordered, {"a": first, "b": second}, "quick")
    assert found.verdict == "reproduced"
    assert list(found.numbers) == ["a", "b", "a - b"]
    again = judge(ordered, rules.plain(found.numbers), "quick")
    assert (again.verdict, again.rows, again.numbers) == (found.verdict, found.rows, found.numbers)
    assert found.other_lines == again.other_lines == []
    assert judge(ordered, {"a": Share(60, 100), "b": Share(50, 100)}, "quick").verdict == "undecided"


def test_what_no_rule_names_is_told_in_one_order_now_and_from_the_record():
    ordered = claim({"type": "ordering", "values": ["a", "b"]})
    found = judge(ordered, {"z": 1, "a": 2, "m": 3, "b": 1}, "quick")
    again = judge(ordered, dict(sorted(rules.plain(found.numbers).items())), "quick")
    assert found.other_lines == again.other_lines == ["m = 3", "z = 1"]


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return sum(
        w * (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4) for w, p in zip((0.2126, 0.7152, 0.0722), parts, strict=True)
    )


@pytest.mark.parametrize("word", dict.fromkeys([*claims.VERDICTS, *claims.ANSWERS, *claims.SURVIVALS]))
def test_every_verdict_has_a_sign_and_a_readable_colour(word):
    sign, colour = markup.LOOKS[word]
    assert sign
    assert 1.05 / (_luminance(colour) + 0.05) >= 4.5  # white letters, WCAG AA


def test_a_lesson_leads_from_a_verdict_to_its_row():
    small = claim(INTERVAL, smallest="standard", kind="robustness", survives=({"type": "interval", "value": "b", "low": 0.5},))
    found = judge(small, {"a": 0.5}, "quick", {"b": 0.1})
    for second, words in ((False, "scaled-down points towards the paper"), (True, "broken at this size")):
        link = BeautifulSoup(claims.verdict_link(found, second=second), "html.parser").a
        assert link["href"] == "evidence.html#tiny2020.one"
        assert " ".join(link.get_text().split())[2:] == words  # after the sign
        assert "\n" not in claims.verdict_link(found, second=second), "it stands in a line of Markdown"
    with pytest.raises(ClaimError, match="one has no second verdict"):
        claims.verdict_link(judge(claim(INTERVAL), {"a": 0.5}, "quick"), second=True)


def test_a_record_is_a_folded_table_of_what_was_run():
    record = {
        "profile": "quick", "overrides": {"steps": 9}, "seeds": [0, 1], "device_name": "A <processor>", "threads": 2,
        "versions": {"torch": "1"}, "platform": "Linux", "data": {"digits/test": "0123456789abcdef"}, "code": "c0de", "commit": None,
        "dirty": True, "units": 3,
        "units_from_cache": 2, "computing_seconds": 1.5, "peak_memory_mb": 7, "parameters": {"steps": 9, "rate": 0.1},
    }  # fmt: skip
    shown = claims.render_record(record)
    assert shown.text.splitlines() == [
        "Profile: quick, with steps = 9", "Seeds: 0, 1", "Device: A <processor>, 2 threads", "Versions: torch 1, Linux",
        "Data: digits/test (sha256 0123456789ab…)", "Code: c0de, commit unknown, with changes that are not committed",
        "Computing: 1.5 s, 2 of 3 results were cached, 7 MB of memory", "Parameters: steps = 9, rate = 0.1",
    ]  # fmt: skip
    assert "<summary>How this page was computed: profile quick, with steps = 9, A &lt;processor&gt;, 2 threads</summary>" in shown.html
    assert shown.html.count("<tr>") == 9


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


def test_a_table_of_several_data_sets_has_a_claim_for_each(book):
    tiny_book.make(book, claims=tiny_book.CLAIMS.replace("tiny2020.table1", "tiny2020.table1.cifar10"))
    assert claims.find("tiny2020.table1.cifar10")[0].key == "tiny2020"


def test_a_claim_can_belong_to_another_chapter_than_its_paper(book):
    tiny_book.make(book, claims=tiny_book.CLAIMS.replace("    where: Theorem 1\n", "    where: Theorem 1\n    chapter: 02_next\n"))
    assert [one.id for one in claims.of_chapter("02_next")] == ["tiny2020.thm1"]
    assert [one.id for one in claims.of_chapter("01_tiny")] == ["tiny2020.table1"]


WORST = "    survives_rules: [{type: interval, value: worst, low: 0.5, passes: {worst: 1}, fails: {worst: 0}}]\n"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("id: tiny2020.table1", "id: tiny2020.thm1"), "ids given twice: tiny2020.thm1"),
        (("id: tiny2020.table1", "id: other2020.table1"), "do not start with tiny2020"),
        (("id: tiny2020.table1", "id: tiny2020.Table 1"), "claims.1.id"),
        (("id: tiny2020.table1", "id: tiny2020.table1."), "claims.1.id"),
        (("key: tiny2020", "key: other2020"), "do not start with other2020"),
        (("kind: robustness", "kind: empirical"), "survives_rules are for robustness claims"),
        ((WORST, ""), "survives_rules are for robustness claims"),
        (("passes: {error: 0}", "passes: {}"), "a rule about error wants an example with these names that passes; given none"),
        ((", fails: {error: 1}", ""), "wants an example with these names that fails"),
        (("passes: {accuracy: 0.9}", "passes: {accuracy: many}"), "accuracy must be a number"),
        (("passes: {accuracy: 0.9}", "passes: {accuracy: {hits: 9, of: 8}}"), "hits <= of"),
        (("passes: {accuracy: 0.9}", "passes: {worst: 0.9}"), "wants an example with these names"),
        (("    published: {accuracy: 0.9}\n", "    ranges: {accuracy: [0, 0.8]}\n"), "accuracy lies in 0 to 0.8; given 0.9"),
        (("shown_by: 01_tiny/evidence#tiny2020.table1", "shown_by: a cell"), "shown_by"),
        (("kind: identity", "kind: theorem"), "claims.0.kind"),
        (("smallest: quick", "smallest: small"), "claims.0.smallest"),
        (("type: max_abs, value: error, tolerance: 1.0e-9", "type: near, value: error"), "claims.0.rules.0"),
        (("tolerance: 1.0e-9", "tolerance: -1"), "tolerance"),
        (("tolerance: 1.0e-9", "tolerance: 1.0e-9, low: 1"), "low"),
        (("value: accuracy, low: 0.8", "value: accuracy, low: 0.8, high: 0.7"), "low <= high"),
        (("value: accuracy, low: 0.8", "value: accuracy"), "at least one of them finite"),
        (("value: accuracy, low: 0.8", "value: Accuracy %, low: 0.8"), "value"),
        (("published: {error: 0}", "published: {error: none}"), "published"),
        (("rules: [{type: max_abs, value: error, tolerance: 1.0e-9, passes: {error: 0}, fails: {error: 1}}]", "rules: []"), "rules"),
        (("    says: \"Two times two is four.\"\n", ""), "says"),
        (("    where: Theorem 1\n", "    where: Theorem 1\n    place: there\n"), "place"),
        (("    where: Theorem 1\n", "    where: Theorem 1\n    where: Theorem 2\n"), "key given twice"),
    ],
)  # fmt: skip
def test_a_registry_that_breaks_the_schema_is_refused_in_one_line(book, change, complaint):
    assert change[0] in tiny_book.CLAIMS
    tiny_book.make(book, claims=tiny_book.CLAIMS.replace(*change))
    with pytest.raises(ClaimError, match=r"tiny2020\.yml") as caught:
        claims.registry()
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_file_bears_the_papers_key(book):
    (book / "data" / "claims" / "tiny2020.yml").rename(book / "data" / "claims" / "tiny2021.yml")
    with pytest.raises(ClaimError, match=r"paper.key is tiny2020, but the file is named tiny2021"):
        claims.registry()


# --- the book's own registry --------------------------------------------------------------------------------------------------------

REGISTRY = claims.registry()
EVERY = {claim.id: claim for paper in REGISTRY.values() for claim in paper.claims}


def test_the_registry_has_claims():
    assert "hess2020" in REGISTRY
    assert all(len(paper.claims) >= 10 for paper in REGISTRY.values())


@pytest.mark.parametrize("name", EVERY)
def test_every_rule_can_pass_and_can_fail(name):
    """The examples are measurements as the rule's own profile could make them."""
    said = [
        rules.apply(name, rule, rules.numbers(name, example)).status
        for rule in EVERY[name].every_rule
        for example in (rule.passes, rule.fails)
    ]
    assert said == ["pass", "fail"] * len(EVERY[name].every_rule)


def at_size(example, kept):
    """What an example would have been in the runs of a record: as many images, estimates as wide unless it has as many draws."""
    value = sum(map(float, example)) / len(example)
    for run in kept:
        if isinstance(run, Share):
            yield Share(round(value * run.of), run.of)
        elif isinstance(run, Difference):
            more, fewer = (round(max(sign * value, 0) * run.of) for sign in (1, -1))
            yield Difference(more, fewer, run.of)
        elif isinstance(run, Estimate) and getattr(example[0], "of", None) != run.of:
            yield Estimate(value, value + run.low - float(run), value + run.high - float(run), run.of)
        else:
            yield example[0]


def at_the_size_of(found, rule, example):
    """An example of a rule, as the runs of a record could have measured it."""
    example = rules.numbers("", example)
    mean = {name: sum(map(float, example[name])) / len(example[name]) for name in rule.names}
    gaps = {rules.minus(a, b): (mean[a] - mean[b],) for a, b in rule.pairs}
    return {name: tuple(at_size(values, found[name])) for name, values in (gaps | example).items() if found.get(name)}


JUDGED_IN_FULL = [
    (manifest.profile, claim.id, found.numbers)
    for profile in profiles.SIZES
    for manifest in manifests.collect(profile).values()
    for claim, found in manifests.judged(manifest)
    if found.verdict not in ("scaled-down", "not run")
]


@pytest.mark.parametrize(("profile", "name", "found"), JUDGED_IN_FULL, ids=lambda value: value if isinstance(value, str) else "")
def test_every_rule_can_pass_and_can_fail_with_as_many_images_as_its_record_has(profile, name, found):
    """A rule that judges in full has decided with power to decide the other way: its examples, with the record's sampling errors."""
    asked = [rule for rule in EVERY[name].every_rule if all(found.get(one) for one in rule.names)]
    said = [rules.apply(name, rule, at_the_size_of(found, rule, example)).status for rule in asked for example in (rule.passes, rule.fails)]
    assert said == ["pass", "fail"] * len(asked)
