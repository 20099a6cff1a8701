"""nbgrader's execution of a submission, such that no cell can cost the points of another exercise.

nbgrader gives up a submission whose kernel dies or cannot be interrupted, gives no points to a cell
that writes a warning, and full points to a cell that is never executed. :class:`FairExecute` takes
the place of its ``Execute`` (``nbgrader_config.py`` of a course folder names it), so that the
command line, the Formgrader and ``python -m support assign grade`` grade alike.
"""

import copy
import os
import subprocess
import sys
import tempfile
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.preprocessors import Execute
from traitlets import Dict, Integer, Unicode

from support.classroom import notebook, seeds
from support.classroom.cells import PARAMETERS
from support.common import fingerprint

Step = tuple[NotebookNode, dict]
TIMED_OUT, DIED, NOT_RUN = "CellTimeoutError", "KernelDied", "NotRun"


class GradingKernel(AsyncKernelManager):
    """A kernel of this interpreter with this package, one thread and no start-up files, whatever
    kernels the machine has and whatever an earlier submission has left there."""

    kernel_spec = KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        display_name="Python 3",
        language="python",
        env={
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(fingerprint.PACKAGE.parent), os.environ.get("PYTHONPATH")])
            ),
            "PYTHONOPTIMIZE": "",  # without assertions every answer is right
            "OMP_NUM_THREADS": "1",
            "BOOK_PROGRESS": "off",
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        },
    )

    async def start_kernel(self, **options: Any) -> None:
        """Start it; what the process itself says is nobody's output."""
        self._profile = tempfile.TemporaryDirectory(prefix="assign-", ignore_cleanup_errors=True)
        environment = os.environ | {"IPYTHONDIR": self._profile.name}
        await super().start_kernel(env=environment, stderr=subprocess.DEVNULL, **options)

    async def _async_cleanup_resources(self, restart: bool = False) -> None:
        await super()._async_cleanup_resources(restart)
        self._profile.cleanup()


class FairExecute(Execute):
    """Executes a submission; a cell that hangs or kills its kernel costs its own exercise and no
    other.

    After a cell of an exercise timed out or killed the kernel, the other tests of this exercise are
    not run. Where the kernel is lost, a new one first runs the earlier cells again, without the
    tests and without what belongs to an exercise that was lost.
    """

    givens_timeout = Integer(
        120, help="Seconds for a cell that the teacher wrote and no student can change."
    ).tag(config=True)
    own_seeds = Dict({}, help="A student's own number, by nbgrader's student id.").tag(config=True)
    course_seed = Unicode(
        "", help="The secret from which all other numbers follow; empty: SEED as in the source."
    ).tag(config=True)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options.setdefault("kernel_manager_class", GradingKernel)
        super().__init__(*arguments, **options)
        self.shutdown_kernel = "immediate"
        self.skip_cells_with_tag = ""  # a student could tag a test
        self.timeout_func = self._seconds
        self._lost: dict[str, str] = {}
        self._given_up = ""

    def _seconds(self, cell: NotebookNode) -> int:
        marks = notebook.marks(cell)
        teachers = marks.get("locked") and not marks.get("grade")
        return self.givens_timeout if teachers else self.timeout

    def preprocess(self, nb: NotebookNode, resources: dict, km: Any = None) -> Step:
        """Execute all cells, with the student's own number in the parameters cell."""
        self._lost, self._given_up = {}, ""
        student, secret = resources["nbgrader"]["student"], self.course_seed
        seed = self.own_seeds.get(student, seeds.seed_of(secret, student) if secret else None)
        for cell in nb.cells:
            if seed is not None and notebook.grade_id(cell).endswith(f"-{PARAMETERS}"):
                cell["source"] = seeds.with_seed(cell.source, seed)
        return super().preprocess(nb, resources, km)

    def preprocess_cell(self, cell: NotebookNode, resources: dict, index: int) -> Step:
        """Execute one cell, whatever it does."""
        if cell.cell_type != "code":
            return cell, resources
        exercise = notebook.exercise_of(notebook.grade_id(cell))
        if reason := self._given_up or self._lost.get(exercise):
            cell["outputs"] = [_error(NOT_RUN, f"not run: {reason}")]
        elif (problem := self._executed(cell, index)) and exercise:
            self._lost[exercise] = problem
        if notebook.marks(cell).get("grade"):
            cell["outputs"] = [_judged(output) for output in cell.outputs]
        return self.nb.cells[index], resources

    def _executed(self, cell: NotebookNode, index: int) -> str:
        """Execute a cell; why its exercise is lost, or nothing."""
        too_long = f"an earlier cell took more than {self._seconds(cell)} s"
        try:
            self.execute_cell(cell, index)
        except (DeadKernelError, CellTimeoutError) as error:
            died = isinstance(error, DeadKernelError)
            found = (DIED, "the kernel died") if died else (TIMED_OUT, "it could not be stopped")
            cell["outputs"] = [*cell.outputs, _error(*found)]
            self.nb.cells[index] = cell
            self._begin_again(index)
            return "the kernel died in an earlier cell" if died else too_long
        return too_long if _ended_by(cell, TIMED_OUT) else ""

    def _begin_again(self, index: int) -> None:
        """A new kernel, with the work of the earlier cells that gave no such trouble."""
        self._cleanup_kernel()
        self.km = self.create_kernel_manager()
        self.start_new_kernel()
        self.start_new_kernel_client()
        for earlier, cell in enumerate(self.nb.cells[:index]):
            lost = notebook.exercise_of(notebook.grade_id(cell)) in self._lost
            graded = notebook.marks(cell).get("grade")
            if cell.cell_type != "code" or graded or lost or _ended_by(cell, TIMED_OUT, DIED):
                continue
            try:
                self.execute_cell(copy.deepcopy(cell), earlier)
            except (DeadKernelError, CellTimeoutError):
                # It went well before; without it, what follows cannot be judged.
                self._given_up = "the kernel died twice"
                return
            finally:
                self.nb.cells[earlier] = cell


def _error(name: str, text: str) -> NotebookNode:
    return new_output("error", ename=name, evalue=text, traceback=[f"{name}: {text}"])


def _ended_by(cell: NotebookNode, *errors: str) -> bool:
    return any(output.get("ename") in errors for output in cell.outputs)


def _judged(output: NotebookNode) -> NotebookNode:
    """An output of a test as nbgrader may read it: a warning is no error, and a value shown is no
    number of points."""
    if output.output_type == "stream" and output.name == "stderr":
        return new_output("stream", name="stdout", text=output.text)
    if output.output_type == "execute_result":
        return new_output("display_data", data=output.data, metadata=output.metadata)
    return output
