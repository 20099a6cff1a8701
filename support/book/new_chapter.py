"""A chapter to begin with: three parts, parameters and a claim, which run and build as they are."""

import re
from pathlib import Path

from support.book import claims, manifests, markup
from support.common import files, paths

PARTS = {
    "evidence.py.j2": "book/{name}/evidence.py",
    "lesson.py.j2": "book/{name}/lesson.py",
    "exercises.py.j2": "book/{name}/exercises.py",
    "profile.yml.j2": "data/profiles/{name}.yml",
    "claims.yml.j2": "data/claims/{key}.yml",
}


class NewChapterError(ValueError):
    """A chapter that cannot be begun. The message is one line."""


def make(name: str, key: str, title: str) -> list[Path]:
    """Write a new chapter and name it where chapters are named.

    Args:
        name: of its folder, such as ``09_margins``.
        key: of its paper, such as ``author2024``.
        title: of its lesson.

    Returns:
        The files that were written or changed.

    Raises:
        NewChapterError: a name or key of another form, or one that is taken.
    """
    if not re.fullmatch(r"\d\d_[a-z][a-z0-9_]*", name):
        raise NewChapterError(f"{name!r}: a chapter is named like 09_margins")
    if not re.fullmatch(r"[a-z]+[0-9]{4}", key):
        raise NewChapterError(f"{key!r}: a paper is named like author2024")
    taken = [one for one in manifests.chapters() if one[:3] == name[:3]]
    if taken or key in claims.registry():
        raise NewChapterError(f"{taken[0] if taken else key} is there already")
    if not title or {*title} & {*'"\\\n'}:
        raise NewChapterError(f"{title!r}: a title is one line without quotes")
    values, root = {"name": name, "key": key, "title": title}, paths.root()
    written = {
        root / place.format(**values): markup.fill(f"chapter/{template}", **values) + "\n"
        for template, place in PARTS.items()
    }
    front = root / "book" / "chapters.yml"
    before = front.read_text(encoding="utf-8") if front.is_file() else ""
    written[front] = f"{before}{markup.fill('chapter/front.yml.j2', **values)}\n"
    contents = root / paths.MARKER
    written[contents] = _listed(contents.read_text(encoding="utf-8"), name)
    files.write_all(written)
    return list(written)


def _listed(contents: str, name: str) -> str:
    """A table of contents with a chapter after the last one, written as that is."""
    last = list(re.finditer(r"^( *)- file: book/\d\d_\w+/lesson\n(?:\1 +.*\n)*", contents, re.M))
    if not last:
        raise NewChapterError(f"{paths.MARKER} lists no chapter after which this one could stand")
    entry = re.sub(r"book/\d\d_\w+/", f"book/{name}/", last[-1][0])
    return contents[: last[-1].end()] + entry + contents[last[-1].end() :]
