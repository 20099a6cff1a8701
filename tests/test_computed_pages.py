"""The computed pages: every number comes from a record, every link leads somewhere, and the table can be filtered and sorted."""

import collections
import csv
import itertools
import math
import re
import shutil
from pathlib import Path

import pytest
import tiny_book
from bs4 import BeautifulSoup

from support import intervals
from support.book import claims, computed_pages, manifests, power, rules, verdict_table
from support.book.profiles import SIZES
from support.book.rules import number
from support.common import paths

TOKEN = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")
# Another chapter, whose claims belong to a key of its own, and a chapter without any.
OWN = tiny_book.CLAIMS.replace("tiny2020", "ours2026").replace("01_tiny", "02_ours").split("  - id: ours2026.table1")[0]

ORDER = (*claims.VERDICTS[:4], *claims.ANSWERS)  # of the words of the first column, an answer after a verdict


# --- what a page may say ----------------------------------------------------------------------------------------------------------


def allowed(claim: claims.Claim, record: manifests.ClaimRecord) -> set[str]:
    """Every number that a row may show: means and intervals of what was recorded, ratios of these, and the bounds of the rules."""
    values = {name: runs for name, runs in rules.numbers(claim.id, record.measured | record.modern).items() if runs}
    found = [rules.interval(runs) for runs in values.values()]
    told: list[str] = []
    bounds: list[float] = [*range(len(claim.every_rule) + 1)]  # how many of the rules hold
    for rule in claim.every_rule:
        bounds += [abs(value) for name, value in rule if name in ("low", "high", "tolerance", "gap")]
        if rule.type == "ratio" and all(name in values for name in rule.names):
            top, bottom = (values[name] for name in rule.names)
            ends = [intervals.ratio(a, b) for a, b in itertools.product(top, bottom)]
            if gaps := values.get(rules.minus(*rule.names)):
                ends = [intervals.paired_ratio(a.hits, b.hits, gap.n10, gap.of) for a, b, gap in zip(top, bottom, gaps, strict=True)]
            bounds += [sum(top) / len(top) / (sum(bottom) / len(bottom))] if sum(bottom) else []
            bounds += [float(end) for pair in ends for end in pair]
        if rule.type == "max_abs" and rule.value in values:
            bounds.append(max(map(abs, values[rule.value])))
        for names in [rule.names] if rule.type == "interval" else rule.pairs:
            runs = values.get(rules.minus(*names) if len(names) > 1 else names[0], [None])
            ends = [power.detectable(value, runs) or () for name, value in rule if name in ("low", "high", "gap") and math.isfinite(value)]
            told += [f"{abs(end):.2g}" for pair in ends for end in pair]
    shown = [value for interval in found for value in interval[:3] if value is not None]
    told += [number(value) for value in shown + bounds] + [number(abs(value)) for value in shown + bounds]
    return {token for text in told for token in TOKEN.findall(text.lstrip("-"))}


def committed() -> dict[tuple[str, str], dict[str, str]]:
    """The committed table of verdicts, by claim and profile."""
    with verdict_table.verdicts_file().open(encoding="utf-8", newline="") as file:
        return {(row["claim"], row["profile"]): row for row in csv.DictReader(file)}


def strange(page: str) -> list[str]:
    """Everything in the table of claims that neither a record nor the committed table of verdicts has."""
    problems = []
    written = committed()
    lines = {line.claim.id: line for line in verdict_table.lines()}
    records = {profile: manifests.collect(profile) for profile in SIZES}
    rows = BeautifulSoup(page, "html.parser").select("table.score tbody tr")
    problems += [f"{name} has no row" for name in sorted({*lines} - {row["id"] for row in rows})]
    for row in rows:
        claim, chapter = lines[row["id"]].claim, lines[row["id"]].chapter
        published = row.select("td")[0].get_text(" ")
        for name in sorted(claim.published, key=len, reverse=True):
            published = published.replace(name.replace("_", " "), " ")
        printed = {token for value in claim.published.values() for token in TOKEN.findall(number(abs(value)))}
        problems += [f"{claim.id}, published: {token}" for token in TOKEN.findall(published) if token not in printed]
        for cell in row.select("td[data-profile]"):
            profile, place = cell["data-profile"], f"{claim.id} at {cell['data-profile']}"
            shown = [badge.get_text()[2:] for badge in cell.select("span[style]")]
            wanted = [written[claim.id, profile][column] for column in ("verdict", "survives")]
            if shown != list(filter(None, wanted)) or [cell["data-verdict"], cell["data-survives"]] != wanted:
                problems.append(f"{place}: shows {shown}, committed is {wanted}")
            manifest = records[profile].get(chapter)
            record = manifest.claims.get(claim.id) if manifest else None
            text = " ".join(part.get_text(" ") for part in cell.select("div") if not part.select("span[style]"))
            for name in sorted(record.measured | record.modern if record else {}, key=len, reverse=True):
                text = text.replace(name.replace("_", " "), " ")
            text = re.sub(r"\b\d+ more\b", "", text)
            known = allowed(claim, record) if record else set()
            problems += [f"{place}: {token}" for token in TOKEN.findall(text) if token not in known]
    return problems


# --- a tiny book ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(book) -> Path:
    """The recorded book with two chapters more: one with claims under a key of its own, and one without claims. Neither was run."""
    for name in ("02_ours", "03_none"):
        (book / "book" / name).mkdir()
        (book / "book" / name / "evidence.py").write_text(tiny_book.SOURCE.replace("# Tiny: the evidence", "# Other"), encoding="utf-8")
    (book / "data" / "claims" / "ours2026.yml").write_text(OWN, encoding="utf-8")
    verdict_table.write()
    return book


def today() -> computed_pages.Board:
    return computed_pages.board(["book/index", "book/01_tiny/lesson", "book/01_tiny/evidence"])


def test_the_table_has_a_row_for_each_claim_and_says_where_it_comes_from(tiny):
    soup = BeautifulSoup(computed_pages.part("table", today()), "html.parser")
    rows = soup.select("table.score tbody tr")
    assert [row["id"] for row in rows] == ["tiny2020.thm1", "tiny2020.table1", "ours2026.thm1"]
    first = rows[0].select_one("th")
    for words in ("Two times two is four.", "Theorem 1", "identity", "judged from quick"):
        assert words in first.get_text()
    assert (first.a["href"], first.a.get_text()) == ("01_tiny/evidence.html#tiny2020.thm1", "Tiny, cell 5")
    assert rows[2].a is None, "a chapter that is no page of the book is named and not linked"
    quick = rows[1].select_one("td[data-profile=quick]")
    assert "accuracy = 0.9" in quick.get_text()
    assert "worst = 0.1" in quick.get_text()
    assert (quick["data-verdict"], quick["data-survives"]) == ("scaled-down", "broken")
    assert "error = 0" in rows[0].select("td")[0].get_text()


def test_the_summary_and_the_counts_are_those_of_the_verdicts(tiny):
    text = computed_pages.part("summary", today())
    for words in (
        "**3 claims** and **0 questions**: 2 of Author 2020, 1 of Author 2020.",
        "**1 is judged**: 1 reproduced.",
        "The rest: 1 scaled-down, 1 not run.",
        ": 1 broken.",
        "No claim",
    ):
        assert words in text
    soup = BeautifulSoup(computed_pages.part("counts", today()), "html.parser")
    cells = {row.th.get_text(): [cell.get_text() for cell in row.select("td")] for row in soup.select("tbody tr")}
    heads = [head.get_text() for head in soup.select("table.score-counts")[0].select("thead tr")[1].select("th")][1:]
    shown = [(word, cell) for word, cell in zip(heads, cells["quick"], strict=True) if cell]
    assert shown == [("claims and questions", "3"), ("reproduced", "1"), ("scaled-down", "1"), ("not run", "1"), ("broken", "1")]
    assert "standard" not in cells, "a profile that nobody has run is hidden"
    assert cells["best of each claim"] == cells["quick"]
    assert cells["Other"][0] == "1"


def test_questions_are_counted_apart_from_claims(tiny):
    tiny_book.make(tiny, claims=tiny_book.CLAIMS.replace("kind: identity", "kind: question"))
    text = computed_pages.part("summary", today())
    assert "**2 claims** and **1 questions**" in text
    assert "**0 are judged**: none yet." in text
    assert "counted apart: 1 yes." in text
    soup = BeautifulSoup(computed_pages.part("counts", today()), "html.parser")
    cells = {row.th.get_text(): [cell.get_text() for cell in row.select("td")] for row in soup.select("tbody tr")}
    assert cells["quick"].index("1", -len(claims.ANSWERS)) == len(cells["quick"]) - len(claims.ANSWERS)


def test_a_record_older_than_its_code_says_so(tiny):
    assert "older code" not in computed_pages.part("table", today())
    tiny_book.make(tiny, source=tiny_book.SOURCE.replace("2 * 2 - 4", "2 * 3 - 6"))
    soup = BeautifulSoup(computed_pages.part("table", today()), "html.parser")
    assert [row["data-older"] for row in soup.select("tbody tr")] == ["yes", "yes", ""]
    assert len(soup.select("td[data-profile=quick] .score-older")) == 2
    assert "2 claims have a record that is older than its code" in computed_pages.part("summary", today())


def test_an_empty_registry_makes_a_page(tiny):
    shutil.rmtree(tiny / "data" / "claims")
    (tiny / "data" / "claims").mkdir()
    with pytest.raises(computed_pages.BoardError, match="python -m support calibrate"):
        computed_pages.part("calibration-linear", today())
    shutil.copy(Path(__file__).parents[1] / "data" / "calibration.json", tiny / "data")
    for name in computed_pages.PARTS:
        computed_pages.filled(f"```{{computed}} {name}\n```", today)


def test_every_number_on_a_page_is_in_a_record(tiny):
    assert strange(computed_pages.part("table", today())) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("accuracy = 0.9", "accuracy = 0.91", "tiny2020.table1 at quick: 0.91"),
        ("worst = 0.1", "worst = 0.6", "tiny2020.table1 at quick: 0.6"),
        ("error = 0</td>", "error = 3</td>", "tiny2020.thm1, published: 3"),
        ("✓ reproduced", "✗ refuted", "tiny2020.thm1 at quick: shows ['refuted']"),
        ('data-survives="broken"', 'data-survives="survives"', "tiny2020.table1 at quick: shows ['scaled-down', 'broken']"),
        ('<tr id="tiny2020.table1"', '<tr id="tiny2020.thm1"', "tiny2020.table1 has no row"),
    ],
)
def test_a_page_that_was_edited_is_found(tiny, old, new, problem):
    page = computed_pages.part("table", today())
    assert old in page
    assert any(problem in found for found in strange(page.replace(old, new)))


def test_a_record_that_was_edited_is_found_on_the_page(tiny):
    page = computed_pages.part("table", today())
    file = verdict_table.verdicts_file()
    file.write_text(file.read_text().replace("tiny2020.thm1,quick,reproduced", "tiny2020.thm1,quick,refuted"))
    assert any("tiny2020.thm1 at quick: shows ['reproduced'], committed is ['refuted'" in found for found in strange(page))
    manifest = manifests.manifest_path(manifests.recorded_run(tiny_book.CHAPTER, "quick"))
    text = re.sub(r"(?<=\s)0\.9\b", "0.95", manifest.read_text())
    manifest.write_text(text.replace("tiny2020.thm1", "tiny2020.thm9"))
    assert any("tiny2020.thm1 at quick: shows ['not run']" in found for found in strange(computed_pages.part("table", today())))
    assert "tiny2020.table1 at quick: 0.9" in strange(page)


# --- words that are quoted --------------------------------------------------------------------------------------------------------


def explain(root: Path, words: str) -> None:
    section = f"# %% [markdown]\n# ## {computed_pages.SECTION}\n#\n{words}\n\n# %%\nrun.show_verdicts()\n"
    tiny_book.make(root, source=tiny_book.SOURCE.replace("# %%\nrun.show_verdicts()\n", section))


def test_a_chapter_is_quoted_with_the_claims_concerned(tiny):
    section = "The table collects the verdicts.\n\n(why)=\n### A cause\nIt *fails* at $x$,\nfor one reason.\n\n## Exercises\nNone."
    explain(tiny, "\n".join(f"# {line}".rstrip() for line in section.splitlines()))
    assert computed_pages.explanation(tiny_book.CHAPTER) == "**A cause**\nIt *fails* at $x$,\nfor one reason."
    text = computed_pages.part("explanations", today())
    assert "### [Tiny](01_tiny/lesson)\n\n> **A cause**\n> It *fails* at $x$,\n> for one reason.\n\n" in text
    rows = BeautifulSoup(text, "html.parser").select("table.score-failures tbody tr")
    assert [row.a.get_text() for row in rows] == ["tiny2020.table1"]
    assert [cell.get_text() for cell in rows[0].select("td")][2:] == ["✗ worst = 0.1 (wants at least 0.5)", "It is not kept."]
    assert "Other" not in text, "a chapter that failed nowhere and explains nothing is left out"


def test_the_errata_are_the_corrections_of_the_registry(tiny):
    text = computed_pages.part("errata", today())
    assert "## Author 2020\n\n*A tiny paper*.\n" in text
    (row,) = BeautifulSoup(text, "html.parser").select("tbody tr")
    said = [cell.get_text(" ") for cell in row.select("th, td")]
    assert said[0] == "Table 1 tiny2020.table1"
    assert said[1:3] == ["The accuracy is kept & the attack fails.", "It is not kept."]
    assert [link["href"] for link in row.select("a")] == ["scoreboard.html#tiny2020.table1", "01_tiny/evidence.html#tiny2020.table1"]
    by_a_test = tiny_book.CLAIMS.replace("01_tiny/evidence#tiny2020.table1", "tests/test_tiny.py::test_it")
    tiny_book.make(tiny, claims=by_a_test.replace("    erratum", "    remark: It is loose.\n    erratum"))
    text = computed_pages.part("errata", today())
    assert "tests/test_tiny.py::test_it" in text
    assert "It is loose." not in text, "a remark is no erratum"


def test_papers_are_named_as_in_a_sentence(tiny):
    paper = claims.registry()["tiny2020"]
    several = {"A. One": "One 2020", "A. One, B. Two": "One and Two 2020", "A. One, B. Two, C. Three": "One et al. 2020"}
    for names, short in (several | {"this book": "this book"}).items():
        assert computed_pages.authors(paper.model_copy(update={"authors": names})) == short


def test_a_placeholder_is_replaced_and_an_unknown_one_refused(tiny):
    page = "Before.\n\n```{computed} summary\n```\n\nAfter.\n"
    assert computed_pages.filled(page, today) == "Before.\n\n" + computed_pages.part("summary", today()) + "\n\nAfter.\n"
    with pytest.raises(computed_pages.BoardError, match=r"no computed part 'sumary': there are summary, counts, table"):
        computed_pages.filled(page.replace("summary", "sumary"), today)


def test_the_pages_that_are_computed_type_no_number():
    for page in ("scoreboard", "errata"):
        text = (paths.root() / "book" / f"{page}.md").read_text(encoding="utf-8")
        assert computed_pages.PLACEHOLDER.findall(text)
        assert not re.search(r"\d", text), page


# --- the published pages ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(site) -> str:
    return (site / "book" / "scoreboard.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def lines(built) -> list[verdict_table.Line]:
    """The scoreboard of the published book."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOK_ROOT", str(built[0]))
        return verdict_table.lines()


def test_the_published_scoreboard_shows_what_is_recorded_and_nothing_else(page, whole):
    assert strange(page) == []
    rows = BeautifulSoup(page, "html.parser").select("table.score tbody tr")
    assert len(rows) == len(committed()) / len(SIZES) > 150 * whole


def test_the_published_counts_are_those_of_the_committed_table(page):
    questions = {claim.id for paper in claims.registry().values() for claim in paper.claims if claim.kind == "question"}
    counted = collections.Counter((row["profile"], row["claim"] in questions, row["verdict"]) for row in committed().values())
    table = BeautifulSoup(page, "html.parser").select_one("table.score-counts")
    groups = [(head.get_text(), int(head["colspan"])) for head in table.select("thead tr:first-child th")]
    asked = [name == verdict_table.ANSWERED for name, span in groups for _ in range(span) if name != verdict_table.SURVIVES]
    survivals = len(verdict_table.QUESTIONS[verdict_table.SURVIVES])
    first = len(claims.VERDICTS)
    words = [head.get_text() for head in table.select("thead tr:last-child th")][2:]
    rows = table.select("tbody tr")[:-1]
    assert len(rows) > 0
    for row in rows:
        profile, shown = row.th.get_text(), [cell.get_text() for cell in row.select("td")][1:]
        pairs = [*zip(words, shown, strict=True)]
        for question, (word, cell) in zip(asked, pairs[:first] + pairs[first + survivals :], strict=True):
            assert cell == str(counted[profile, question, word] or ""), (profile, word)


def test_every_erratum_and_every_explanation_is_published(site, page):
    errata = BeautifulSoup((site / "book" / "errata.html").read_text(encoding="utf-8"), "html.parser")
    registered = {claim.id: claim.erratum for paper in claims.registry().values() for claim in paper.claims if claim.erratum}
    rows = errata.select("table.score-errata tbody tr")
    assert sorted(row.select_one(".score-name").get_text() for row in rows) == sorted(registered)
    wanted = {re.sub(r"\$([^$]+)\$", r"\\(\1\\)", found.text) for found in registered.values()}
    assert wanted <= {cell.get_text() for row in rows for cell in row.select("td")}
    quotes = BeautifulSoup(page, "html.parser").select("blockquote")
    assert len(quotes) == sum(bool(computed_pages.explanation(chapter)) for chapter in manifests.chapters())


def stating(found):
    """What an anchor stands for: a row, or a cell; one that states several claims holds an empty anchor for each after the first."""
    return found.parent if found.name == "span" else found


def test_every_link_of_the_computed_pages_leads_to_a_cell_that_states_the_claim(site, lines):
    targets, followed = {}, set()
    for name in ("scoreboard", "errata"):
        soup = BeautifulSoup((site / "book" / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
        for link in soup.select(".score-scroll a[href], a[download]"):
            file, _, anchor = link["href"].partition("#")
            target = (site / "book" / file).resolve()
            assert target.is_file(), link["href"]
            if anchor:
                if target not in targets:
                    targets[target] = BeautifulSoup(target.read_text(encoding="utf-8"), "html.parser")
                found = targets[target].find(id=anchor)
                assert found is not None and anchor in stating(found).get_text(), link["href"]
                followed |= {anchor} if "evidence.html" in file else set()
    assert followed == {line.claim.id for line in lines}


def test_each_claim_is_stated_at_one_anchor_of_its_evidence(site):
    for chapter in manifests.chapters():
        soup = BeautifulSoup((site / "book" / chapter / "evidence.html").read_text(encoding="utf-8"), "html.parser")
        for claim in claims.of_chapter(chapter):
            (found,) = soup.select(f'[id="{claim.id}"]')
            assert "cell" in stating(found)["class"]


# --- in a browser -----------------------------------------------------------------------------------------------------------------


def shown(tab) -> list[str]:
    """The rows of the table, once all of them were asked for."""
    while (more := tab.get_by_role("button", name="Show more claims")).is_visible():
        more.click()
    return tab.evaluate("[...document.querySelectorAll('table.score tbody tr')].filter(row => row.offsetParent).map(row => row.id)")


def test_filters_and_order_work_and_ask_nothing_of_the_network(look, lines):
    tab, asked, complaints = look("book/scoreboard")
    status = tab.locator(".score-count")
    names = [line.claim.id for line in lines]

    def field(name: str):
        return tab.locator(f".score-controls [name={name}]")

    def everything() -> None:
        tab.get_by_role("button", name="Show all").click()
        tab.wait_for_function(f"document.querySelector('.score-count').textContent.startsWith('{len(names)} of')")

    assert tab.locator("table.score tbody tr").count() == min(50, len(names)), "a few at first"
    assert shown(tab) == names
    facts = {
        line.claim.id: {
            "paper": line.paper.key,
            "chapter": line.chapter,
            "kind": line.claim.kind,
            "verdict": line.best.judgement.verdict,
            "survives": line.best.judgement.survives,
        }
        for line in lines
    }
    for name in ("paper", "chapter", "kind", "verdict", "survives"):
        value = next(filter(None, (found[name] for found in reversed(facts.values()))))
        field(name).select_option(value)
        wanted = [claim for claim, found in facts.items() if found[name] == value]
        assert shown(tab) == wanted != []
        assert status.inner_text().startswith(f"{len(wanted)} of {len(names)} claims")
        everything()

    field("profile").select_option("quick")
    field("verdict").select_option("reproduced")
    wanted = [line.claim.id for line in lines if line.at("quick").judgement.verdict == "reproduced"]
    assert shown(tab) == wanted != []
    assert tab.locator("th[data-profile=standard]").is_hidden()
    assert tab.locator("th[data-profile=quick]").is_visible()
    assert status.inner_text() == f"{len(wanted)} of {len(names)} claims: {len(wanted)} reproduced"
    field("text").fill("THEOREM " + wanted[0].partition(".")[0])
    assert set(shown(tab)) <= set(wanted)
    field("text").fill("no such words")
    assert shown(tab) == []
    assert status.inner_text() == f"0 of {len(names)} claims"
    everything()

    field("sort").select_option("claim")
    assert sorted(shown(tab)) == sorted(names) != names
    assert [name.partition(".")[0] for name in shown(tab)] == sorted(name.partition(".")[0] for name in names)
    field("sort").select_option("verdict")
    found = [facts[name]["verdict"] for name in shown(tab)]
    assert found == sorted(found, key=ORDER.index)

    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_table_is_worked_with_the_keyboard(look, lines):
    quick = {line.claim.id: line.at("quick").judgement.verdict for line in lines}
    tab, _, complaints = look("book/scoreboard")
    button = tab.get_by_role("button", name="Profile quick")
    button.focus()
    tab.keyboard.press("Enter")
    head = tab.locator("th[data-sort=quick]")
    assert head.get_attribute("aria-sort") == "ascending"
    assert [quick[name] for name in shown(tab)] == sorted(quick.values(), key=ORDER.index)
    button.focus()  # what is shown was unfolded by another one
    tab.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "descending"
    assert [quick[name] for name in shown(tab)] == sorted(quick.values(), key=ORDER.index, reverse=True)
    select = tab.get_by_label("Reproduces, or is so?")
    select.focus()
    for _ in range(claims.VERDICTS.index("reproduced") + 1):  # past "all"
        tab.keyboard.press("ArrowDown")
    assert set(shown(tab)) == {line.claim.id for line in lines if line.best.judgement.verdict == "reproduced"}
    assert tab.get_by_role("status").inner_text().endswith(" reproduced")
    for name in tab.locator(".score-controls :is(select, input, button)").all():
        assert name.evaluate("field => field.matches('button') || field.labels.length === 1")
    assert complaints == []


def test_without_scripts_the_table_is_complete_and_has_no_controls(look):
    tab, _, _ = look("book/scoreboard", java_script_enabled=False)
    rows = tab.locator("table.score tbody tr")
    assert rows.count() == len(committed()) / len(SIZES)
    assert rows.last.is_visible()
    assert tab.locator(".score-controls").is_hidden()


def test_a_wide_table_scrolls_in_its_frame(look):
    for name in ("scoreboard", "errata"):
        tab, _, _ = look(f"book/{name}")
        tab.set_viewport_size({"width": 390, "height": 844})
        assert tab.evaluate("document.documentElement.scrollWidth") <= 392
        assert tab.evaluate("[...document.querySelectorAll('.score-scroll')].some(frame => frame.scrollWidth > frame.clientWidth)")


def test_on_a_telephone_no_verdict_of_the_table_is_out_of_sight(look):
    tab, _, _ = look("book/scoreboard")
    tab.set_viewport_size({"width": 390, "height": 844})
    ends = tab.evaluate("[...document.querySelectorAll('td[data-verdict] span[style]')].map(one => one.getBoundingClientRect().right)")
    assert len(ends) > 2
    assert max(ends) <= 390


def test_a_row_leads_to_the_cell_of_its_claim(look, lines):
    line = lines[-1]
    tab, _, _ = look("book/scoreboard", to=line.claim.id)
    tab.locator(f"[id='{line.claim.id}'] th a").click()
    assert tab.url.endswith(f"{line.chapter}/evidence.html#{line.claim.id}")
    tab.wait_for_load_state()
    assert line.claim.id in tab.locator(f"[id='{line.claim.id}']").text_content()
    place = f"document.getElementById('{line.claim.id}').getBoundingClientRect().top"
    tab.wait_for_function(f"(top => top >= 0 && top < innerHeight)({place})")
