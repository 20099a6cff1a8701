"""A book of one tiny chapter, in its three parts, in a temporary folder: for the tests of the machinery."""

import shutil
from pathlib import Path

from support.common import paths

CHAPTER = "01_tiny"

PROFILE = """
fields:
  seeds: {type: int, min: 1, max: 9, help: "runs", quick: 2, standard: 3, paper: 3}
  steps: {type: int, min: 1, max: 100, help: "steps taken", quick: 5, standard: 50, paper: 100}
  rate:  {type: float, min: 0.0, max: 1.0, help: "learning rate", quick: 0.5, standard: 0.1, paper: 0.1}
  sizes: {type: "list[float]", min: 0.0, help: "sizes", quick: [0.5, 1.0], standard: [1.0], paper: [1.0]}
  data:  {type: str, choices: [digits, mnist], help: "data set", quick: digits, standard: digits, paper: mnist}
  wide:  {type: bool, help: "whether wide", quick: false, standard: true, paper: true}
estimate:
  quick:    {minutes: 1, memory_gb: 1, disk_mb: 5}
  standard: {minutes: 30, memory_gb: 2, disk_mb: 5}
  paper:    {minutes: 90, memory_gb: 8, disk_mb: 50}
"""

CLAIMS = """
paper: {key: tiny2020, title: "A tiny paper", authors: "A. Author", year: 2020, chapter: 01_tiny}
claims:
  - id: tiny2020.thm1
    kind: identity
    where: Theorem 1
    says: "Two times two is four."
    published: {error: 0}
    rules: [{type: max_abs, value: error, tolerance: 1.0e-9, passes: {error: 0}, fails: {error: 1}}]
    smallest: quick
  - id: tiny2020.table1
    kind: robustness
    where: Table 1
    says: "The accuracy is kept & the attack fails."
    published: {accuracy: 0.9}
    rules: [{type: interval, value: accuracy, low: 0.8, passes: {accuracy: 0.9}, fails: {accuracy: 0.7}}]
    survives_rules: [{type: interval, value: worst, low: 0.5, passes: {worst: 1}, fails: {worst: 0}}]
    smallest: standard
    erratum: {text: "It is not kept.", shown_by: 01_tiny/evidence#tiny2020.table1}
"""

PARAMETERS = """
# %% tags=["parameters"]
profile: str = "quick"  # which column
seed: int = 0  # first seed
device: str = "cpu"  # where
overrides: dict = {}  # changes

# %% tags=["hide-input"]
from support.book import chapter_run

run = chapter_run.start("01_tiny/PART", profile, seed, device, overrides)
p = run.profile
"""

SOURCE = f"""# %% [markdown]
# # Tiny: the evidence
#
# The first words.
{PARAMETERS.replace("PART", "evidence")}run.keep("steps", p.steps)
print("steps", p.steps)

# %% name="fig-steps"
list(range(p.steps))

# %% tags=["nbval-check-output"]
run.claim("tiny2020.thm1", error=2 * 2 - 4)

# %%
run.claim("tiny2020.table1", accuracy=[0.9 for _ in run.seeds], modern={{"worst": 0.1}})

# %%
run.show_verdicts()
run.finish()
"""

LESSON = f"""# %% [markdown]
# # Tiny
#
# The question.
#
# ```{{prf:theorem}} Twice two
# :label: thm-tiny
# Two times two is $4$.
# ```
{PARAMETERS.replace("PART", "lesson")}
# %%
run.show("fig-steps")

# %%
print("kept", run.evidence.kept["steps"], "claims", len(run.evidence.claims))

# %%
run.show_verdicts()
run.finish()
"""

EXERCISES = f"""# %% [markdown]
# # Exercises: Tiny
{PARAMETERS.replace("PART", "exercises")}
# %% [markdown]
# ```{{exercise}} Thrice
# :label: ex-tiny
# How much is three times two?
# ```

# %% tags=["nbval-check-output"]
print(3 * 2)

# %% tags=["hide-input"]
run.finish()
"""


def make(
    root: Path, source: str = SOURCE, claims: str = CLAIMS, profile: str = PROFILE, *, lesson: str = LESSON, exercises: str = EXERCISES
) -> Path:
    """Write the book under ``root`` and return ``root``; ``source`` is the evidence, and a part without text is left out."""
    parts = {part: text for part, text in {"lesson": lesson, "evidence": source, "exercises": exercises}.items() if text}
    for folder in (f"book/{CHAPTER}", "data/claims", "data/profiles"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    contents = "".join(f"- file: book/{CHAPTER}/{part}\n" for part in parts)
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: book/index\nchapters:\n{contents}", encoding="utf-8")
    for part, text in parts.items():
        (root / "book" / CHAPTER / f"{part}.py").write_text(text, encoding="utf-8")
    (root / "data" / "claims" / "tiny2020.yml").write_text(claims, encoding="utf-8")
    (root / "data" / "profiles" / f"{CHAPTER}.yml").write_text(profile, encoding="utf-8")
    return root


CONTENTS = f"""format: jb-book
root: book/index
parts:
- caption: Chapters
  numbered: 1
  chapters:
  - file: book/{CHAPTER}/lesson
    sections:
    - file: book/{CHAPTER}/evidence
    - file: book/{CHAPTER}/exercises
- caption: Reference
  chapters:
  - file: book/attackers
  - file: book/how_to_read
  - file: book/scoreboard
  - file: book/errata
  - file: book/glossary
  - file: book/notation
  - file: book/bibliography
"""


def add_pages(root: Path) -> None:
    """Give a tiny book what its publication needs: the configuration and the pages of this project, around its own chapter."""
    book = paths.root() / "book"
    shutil.copy(paths.root() / "_config.yml", root)
    shutil.copytree(book / "_static", root / "book" / "_static")
    for name in (
        "references.bib",
        "how_to_read.md",
        "glossary.md",
        "notation.md",
        "scoreboard.md",
        "errata.md",
        "bibliography.md",
        "attackers.md",
    ):
        shutil.copy(book / name, root / "book")
    shutil.copy(paths.root() / "data" / "calibration.json", root / "data")
    (root / "book" / "index.md").write_text("# A tiny book\n\nIt has one chapter.\n", encoding="utf-8")
    (root / "_toc.yml").write_text(CONTENTS, encoding="utf-8")
