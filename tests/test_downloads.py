"""The scoreboard as files: they hold what the records hold, and the JSON is what its schema says."""

import csv
import hashlib
import io
import json

import jsonschema
import pytest
import tiny_book

from support.book import computed_pages, downloads, manifests, verdict_table

TABLE1 = "tiny2020.table1"


def today() -> computed_pages.Board:
    return computed_pages.board(["book/index", "book/01_tiny/lesson", "book/01_tiny/evidence"])


def as_data() -> dict:
    """The JSON of today, held against its own schema as published."""
    files = downloads.beside(today())
    schema, found = json.loads(files[downloads.SCHEMA]), json.loads(files[downloads.JSON])
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(found)
    return found


def recorded() -> manifests.Manifest:
    return manifests.manifest_of(manifests.recorded_run(tiny_book.CHAPTER, "quick"))


def test_the_table_has_a_row_for_each_claim_and_profile_that_was_run(book):
    rows = list(csv.DictReader(io.StringIO(downloads.as_csv(today()))))
    assert [(row["claim"], row["profile"]) for row in rows] == [("tiny2020.thm1", "quick"), (TABLE1, "quick")]
    wanted = {
        "verdict": "scaled-down", "direction": "towards", "survives": "broken", "cell": "6", "runs": "2", "kind": "robustness",
        "measured": "accuracy = 0.9; worst = 0.1", "erratum": "It is not kept.", "shown_by": f"01_tiny/evidence#{TABLE1}", "remark": "",
    }  # fmt: skip
    assert {name: rows[1][name] for name in wanted} == wanted


def test_the_data_hold_what_the_records_hold(book):
    found = as_data()
    first, second = found["claims"]
    assert (first["id"], first["best"], second["id"]) == ("tiny2020.thm1", "quick", TABLE1)
    here = second["profiles"]["quick"]
    assert list(second["profiles"]) == ["quick"], "a profile that was not run is left out"
    assert (here["verdict"], here["direction"], here["survives"]) == ("scaled-down", "towards", "broken")
    assert here["rules"] == {"passed": 1, "failed": 0, "undecided": 0, "missing": 0}
    assert here["survives_rules"] == {"passed": 0, "failed": 1, "undecided": 0, "missing": 0}
    record = recorded().claims[TABLE1]
    assert {name: number["runs"] for name, number in here["numbers"].items()} == record.measured | record.modern
    assert here["numbers"]["worst"] == {"mean": 0.1, "low": None, "high": None, "runs": [0.1]}
    assert second["rules"] == [{"low": 0.8, "high": None, "type": "interval", "value": "accuracy"}]
    assert here["survives_outcomes"] == [{"status": "fail", "seen": "worst = 0.1", "wants": "at least 0.5"}]


def test_each_number_leads_to_the_file_that_holds_it(book):
    found = as_data()
    record = found["records"][found["claims"][1]["profiles"]["quick"]["record"]]
    content = (book / record["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == record["sha256"]
    assert TABLE1 in json.loads(content)["claims"]
    assert not record["older_than_its_code"]
    tiny_book.make(book, source=tiny_book.SOURCE.replace("2 * 2 - 4", "2 * 3 - 6"))
    assert [record["older_than_its_code"] for record in as_data()["records"].values()] == [True]


def test_numbers_keep_their_sampling_error(book):
    file = manifests.manifest_path(manifests.recorded_run(tiny_book.CHAPTER, "quick"))
    manifest = json.loads(file.read_text())
    manifest["claims"][TABLE1]["measured"]["accuracy"] = [{"value": 0.9, "hits": 90, "of": 100}] * 2
    file.write_text(json.dumps(manifest))
    number = as_data()["claims"][1]["profiles"]["quick"]["numbers"]["accuracy"]
    assert number["runs"] == [{"value": 0.9, "hits": 90, "of": 100}] * 2
    assert 0.82 < number["low"] < 0.9 < number["high"] < 0.96
    assert verdict_table.lines()[1].best.row["direction"] == "towards"


def test_what_was_not_run_has_no_profile_and_no_number(book):
    manifests.recorded_run(tiny_book.CHAPTER, "quick").unlink()
    found = as_data()
    assert found["records"] == {}
    assert [(claim["best"], claim["profiles"]) for claim in found["claims"]] == [(None, {})] * 2
    assert [row["verdict"] for row in csv.DictReader(io.StringIO(downloads.as_csv(today())))] == ["not run"] * 2


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("format",), 2),
        (("claims", 0, "kind"), "open"),
        (("claims", 0, "profiles", "quick", "verdict"), "proved"),
        (("claims", 0, "profiles", "quick", "rules", "passed"), "all"),
        (("records", "quick/01_tiny", "sha256"), "0"),
        (("claims", 0, "extra"), 1),
    ],
)
def test_the_schema_refuses_what_the_board_never_says(book, place, value):
    files = downloads.beside(today())
    found = inner = json.loads(files[downloads.JSON])
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json.loads(files[downloads.SCHEMA])).validate(found)
