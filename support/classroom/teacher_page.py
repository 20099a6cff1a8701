"""The computed part of the teacher's page, made from the exercises and their wrong answers:
``python -m support.classroom.teacher_page``."""

import re
from pathlib import Path

from support.classroom import cells, exercises, texts, wrong_answers
from support.common import paths

_BLOCK = re.compile(r"(<!-- computed: (\w+) -->\n).*?(<!-- end -->)", re.S)


def page() -> Path:
    """The teacher's page."""
    return paths.root() / "book" / "teach.md"


def text(old: str) -> str:
    """The page's text with its computed parts as the sources have them now: a table of all
    assignments with their points, and for each a table of the mistakes that are known to lose
    some."""
    assignments = [exercises.read(chapter) for chapter in cells.chapters()]
    known = [(each, wrong_answers.read(each)[0]) for each in assignments]
    values = {"assignments": assignments, "chapters": known}

    def made(found: re.Match) -> str:
        return f"{found[1]}\n{texts.fill(f'{found[2]}.md.j2', **values)}\n\n{found[3]}"

    return _BLOCK.sub(made, old)


if __name__ == "__main__":
    page().write_text(text(page().read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
