"""Class lists: one name a line, or what Moodle and Canvas export; and the same lists with points,
which both import again."""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from support.classroom.cells import AssignmentError
from support.common import files

_FULL = ("full name", "vollständiger name", "nom complet", "nombre completo", "name", "student")
_FIRST = ("first name", "vorname", "prénom", "nombre", "given name")
_LAST = ("last name", "surname", "nachname", "nom", "nom de famille", "apellido(s)")
_KEYS = ("id", "identifier", "id number", "username", "email address", "e-mail-adresse", "email",
         "sis login id", "sis user id", "login id")  # fmt: skip
_NOBODY = re.compile(r"\s*points possible|student, test$", re.I)
_CODE_PAGES = ("cp1252", "cp1250", "mac_roman")
_ODD = re.compile(r"[^\w\s.,;:@'\"()/+-]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Person:
    """Somebody on a list: the name, what else a platform calls them, and the row of the list."""

    name: str
    keys: frozenset[str]
    row: Mapping[str, str] = field(default_factory=dict, compare=False)


def read(file: Path) -> list[Person]:
    """The people on a list, whatever spreadsheet wrote it: UTF-8, UTF-16, or a code page of Windows
    or of a Mac.

    Raises:
        AssignmentError: no such file, or a list that is empty or names somebody twice.
    """
    if not file.is_file():
        raise AssignmentError(f"there is no file {file}")
    people = list(_people(_decoded(file.read_bytes())))
    if not people:
        raise AssignmentError(f"the list of students is empty: {file}")
    names = [each.name for each in people]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise AssignmentError(f"the list of students has {', '.join(twice)} twice: {file}")
    return people


def _decoded(raw: bytes) -> str:
    """Text with plain line ends. Of the code pages, that in which fewest characters are odd."""
    if b"\0" in raw:
        marked = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = raw.decode("utf-16" if marked else "utf-16-le", "replace")
    else:
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            found = [raw.decode(page, "replace") for page in _CODE_PAGES]
            text = min(found, key=lambda each: len(_ODD.findall(each)))
    return "\n".join(text.splitlines()).strip()


def _people(text: str) -> Iterable[Person]:
    text = re.sub(r"^sep=.\n", "", text)  # a hint to Excel
    first = text.partition("\n")[0]
    mark = max(",;\t", key=first.count)
    rows = list(csv.DictReader(io.StringIO(text), delimiter=mark))
    columns = {str(title).strip().casefold(): title for title in (rows[0] if rows else ())}
    full = next((columns[title] for title in _FULL if title in columns), None)
    parts = [next((columns[t] for t in some if t in columns), None) for some in (_FIRST, _LAST)]
    if full is None and None in parts:  # no titles: one name a line
        rows, columns, full = [{"": line} for line in text.splitlines()], {}, ""
    for row in rows:
        told = [row.get(part) or "" for part in (parts if full is None else [full])]
        name = " ".join(unicodedata.normalize("NFC", " ".join(told)).split())
        if not name or _NOBODY.match(name):
            continue
        own = [row.get(columns[key]) or "" for key in _KEYS if key in columns]
        keys = _keys(name).union(*map(_keys, own))
        name = " ".join(reversed(name.split(", ", 1)))  # Canvas: "Example, Anna"
        yield Person(name, keys | _keys(name), {str(k): str(v or "") for k, v in row.items() if k})


def _keys(text: str) -> frozenset[str]:
    """What a name, an address or a number may be recognised by: its letters, in either order."""
    text = text.strip().casefold().removeprefix("participant ").removeprefix("teilnehmer/in")
    # An umlaut is written in two ways where there is none: Müller is muller, and mueller.
    wide = text.translate({ord("ä"): "ae", ord("ö"): "oe", ord("ü"): "ue"})
    found = {text}
    for written in (text, wide):
        plain = unicodedata.normalize("NFKD", written.replace("ß", "ss"))
        plain = "".join(each for each in plain if not unicodedata.combining(each))
        parts = re.findall(r"\w+", plain)
        found |= {"".join(parts), "".join(parts[-1:] + parts[:-1])}
    return frozenset(found - {""})


def match(people: Iterable[Person], *names: str) -> Person | None:
    """The person that names or numbers on a submission stand for; None if it is nobody or two."""
    for name in filter(None, names):
        found = [each for each in people if _keys(name) & each.keys]
        if len(found) == 1:
            return found[0]
    return None


def safe(words: object) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{words}" if str(words).startswith(_FORMULA) else str(words)


def write_points(
    people: list[Person], points: Mapping[str, Mapping[str, float]], most: Mapping[str, float],
    file: Path,
) -> Path:  # fmt: skip
    """The list as it came, with a column of points for each assignment, for Moodle or Canvas.

    Args:
        people: from :func:`read`.
        points: by assignment and name.
        most: the highest score of each assignment.
        file: what to write.
    """
    titles = list(dict.fromkeys(key for each in people for key in each.row)) or ["Full name"]
    canvas = {"Student", "ID", "Section"} <= set(titles)
    columns = [*titles, *(name for name in points if name not in titles)]
    possible = {titles[0]: "    Points Possible"} | {name: f"{most[name]:g}" for name in points}
    rows = [possible] if canvas else []
    for each in people:
        own = {name: of[each.name] for name, of in points.items() if each.name in of}
        row = dict(each.row) or {"Full name": each.name}
        if "Grade" in row and len(own) == 1:  # Moodle's worksheet for one assignment
            row["Grade"] = f"{next(iter(own.values())):g}"
        rows.append({k: safe(v) for k, v in row.items()} | {k: f"{v:g}" for k, v in own.items()})
    files.write_all({file: "\ufeff" * (not canvas) + files.csv_text(columns, rows)})
    return file
