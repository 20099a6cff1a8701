"""A small Sphinx extension, named in ``_config.yml``: the tables of the teacher's page, computed
from the exercises and their wrong answers.

A placeholder names its table: three backticks and ``{assignments} overview`` is the table of all
assignments with their points, ``{assignments} mistakes`` the mistakes that are known to lose some.
"""

import re
from typing import Any

from support.classroom import cells, exercises, texts, wrong_answers

PLACEHOLDER = re.compile(r"^```\{assignments\} (overview|mistakes)\n```$", re.M)
_NAME = "book/teach"


def filled(text: str) -> str:
    """The page with its tables as the sources have them now."""
    assignments = [exercises.read(chapter) for chapter in cells.chapters()]
    known = [(each, wrong_answers.of_chapter(each.chapter)) for each in assignments]
    return PLACEHOLDER.sub(lambda found: texts.fill(f"{found[1]}.md.j2", chapters=known), text)


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""

    def fill(_: Any, name: str, source: list[str]) -> None:
        if name == _NAME:
            source[0] = filled(source[0])

    def again(_: Any, env: Any, names: list[str]) -> None:
        """It changes with the exercises, not with its source."""
        if _NAME in env.found_docs and _NAME not in names:
            names.append(_NAME)

    app.connect("source-read", fill)
    app.connect("env-before-read-docs", again)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
