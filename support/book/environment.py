"""``environment.yml`` for people who use conda, made from ``pyproject.toml``: ``python -m
support.book.environment``.

Everything but Python itself is installed by pip with the versions of ``constraints.txt``, so that
conda and pip users have the same environment.
"""

import tomllib

from support.common import paths

EXTRAS = ("book", "tests", "classroom")  # what the Makefile installs


def text() -> str:
    """The file's content.

    Raises:
        ValueError: ``pyproject.toml`` has no extra of one of these names.
    """
    project = tomllib.loads((paths.root() / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    if missing := [name for name in EXTRAS if name not in project["optional-dependencies"]]:
        raise ValueError(f"pyproject.toml has no extra named {', '.join(missing)}")
    tested = sorted(
        int(line.rpartition(".")[2]) for line in project["classifiers"] if ":: Python :: 3." in line
    )
    lines = [
        "# Made from pyproject.toml by: python -m support.book.environment",
        f"name: {project['name']}",
        "channels: [conda-forge]",
        "dependencies:",
        f"  - python >=3.{tested[0]},<3.{tested[-1] + 1}",  # conda would take the newest, for which the pins may have no build
        "  - pip",
        "  - pip:",
        "      - -c constraints.txt",
        f"      - -e .[{','.join(EXTRAS)}]",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (paths.root() / "environment.yml").write_text(text(), encoding="utf-8", newline="\n")
