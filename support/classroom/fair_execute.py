"""nbgrader's execution of a submission, done by :mod:`~support.classroom.judge`.

:class:`FairExecute` takes the place of nbgrader's ``Execute`` (``nbgrader_config.py`` of a course
folder names it), so that the command line, the Formgrader and ``python -m support assign grade``
grade alike.
"""

import dataclasses
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Dict, Float, Unicode

from support.classroom import judge, seeds

JUDGED = "judged"  # where a notebook's metadata say how it was judged


class FairExecute(NbGraderPreprocessor):
    """Puts into a submission what came of it."""

    source = Unicode("", help="The course's folder of instructors' versions.").tag(config=True)
    seconds = Float(6, help="Time for one cell of a student.").tag(config=True)
    own_seeds = Dict({}, help="A student's own number, by nbgrader's student id.").tag(config=True)
    course_seed = Unicode(
        "", help="The secret from which all other numbers follow; empty: SEED as in the source."
    ).tag(config=True)
    judged = Dict({}, help="Notebooks that were judged already, by student id.").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """Judge all cells, with the student's own number in the parameters cell."""
        about = resources["nbgrader"]
        student, chapter, secret = about["student"], about["assignment"], self.course_seed
        if student in self.judged:
            done = nbformat.from_dict(self.judged[student])
        else:
            file = Path(self.source) / chapter / f"{chapter}.ipynb"
            instructor = nbformat.read(file, as_version=4)
            seed = self.own_seeds.get(student, seeds.seed_of(secret, student) if secret else None)
            done = judged(nb, instructor, seed, self.seconds)
        return done, resources


def judged(
    nb: NotebookNode, instructor: NotebookNode, seed: int | None, seconds: float
) -> NotebookNode:
    """A submission with the outputs of its cells, and a report in its metadata."""
    report = judge.judge(nb, instructor, seed=seed, seconds=seconds)
    nb.metadata[JUDGED] = dataclasses.asdict(report)
    return nb
