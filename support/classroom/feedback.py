"""What a student reads: nbgrader's feedback page, with words in the place of the tests.

For each exercise it has the prompt, the student's answer, the teacher's comments, and for each test
the points, what it asks for, whether that was met, and the mistake that the answer looks like. It
has nothing of a hidden test, neither code nor numbers, and nothing that a student's code wrote or
said, which could carry what the tests had passed to it. It loads nothing from the network.
"""

import builtins
from pathlib import Path

from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from nbgrader.preprocessors import GetGrades, NbGraderPreprocessor
from nbgrader.server_extensions import formgrader
from traitlets import List
from traitlets.config import Config

from support.classroom import judge, notebook, texts
from support.classroom.cells import PROMPT, criterion

_LATER = "a further test of your teacher's"


def words(cell: NotebookNode) -> str:
    """What a student reads in the place of a cell of tests, as Markdown."""
    identity, found = notebook.grade_id(cell), cell.metadata.get(judge.VERDICT, {})
    hidden, error = notebook.is_hidden(identity), found.get("error", "Lost")
    known = isinstance(getattr(builtins, error, None), type)
    return texts.fill(
        "feedback.md.j2",
        hidden=hidden,
        asked=criterion(cell.source) or _LATER,
        error=error,
        name=error if known else "",
        said="" if hidden and error != "Lost" else found.get("said", ""),
        mistake=found.get("mistake", ""),
    )


class InWords(NbGraderPreprocessor):
    """Keeps of an autograded notebook what its student may read."""

    display_data_priority = List(help="Of nbconvert, which has it for all.").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """Replace the cells of tests by :func:`words`, and drop all outputs."""
        kept = []
        for cell in nb.cells:
            identity, marks = notebook.grade_id(cell), notebook.marks(cell)
            if marks.get("grade") and not marks.get("solution"):
                kept.append(new_markdown_cell(words(cell), metadata=cell.metadata))
            elif marks.get("solution") or identity.endswith(f"-{PROMPT}"):
                if cell.cell_type == "code":
                    cell["outputs"] = []
                kept.append(cell)
        nb["cells"] = kept
        return nb, resources


def configure(config: Config) -> None:
    """Have nbgrader make its feedback pages in this way."""
    config.GenerateFeedback.preprocessors = [GetGrades, InWords, CSSHTMLHeaderPreprocessor]
    # Ours takes the place of a part of nbgrader's that asks a server for MathJax.
    ours = Path(__file__).parent / "templates" / "html"
    theirs = Path(formgrader.__file__).parent / "templates"
    config.HTMLExporter.extra_template_basedirs = [str(ours), str(theirs)]
