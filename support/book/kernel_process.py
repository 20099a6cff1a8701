"""The process of a kernel that is forked from one that has imported ``IMPORTED``: what notebooks
import, by which nothing is computed and no thread of torch is started. The backend of the figures
is not among them: it asks for the shell when it is imported, and without one it draws nothing."""

import multiprocessing
import os
import sys
import threading

BACKEND = "module://matplotlib_inline.backend_inline"
IMPORTED = (
    "torch",
    "torch._dynamo",  # the first optimiser imports it
    "support.common.vision",
    "ipykernel.kernelapp",
    "IPython.core.pylabtools",
    "matplotlib.pyplot",
    "seaborn",
    "pandas",
    "pydantic",
    "nbformat",
    "scipy.optimize",
    "scipy.spatial",
    "scipy.stats",
    "sklearn.cluster",
    "sklearn.datasets",
)


def main(arguments: list[str], environment: dict[str, str], folder: str, log: str) -> None:
    """Be a kernel until it is shut down, or until the process that asked for it is gone.

    Args:
        arguments: of ipykernel.
        environment: every variable that it shall have.
        folder: where it works.
        log: the file that takes what the process itself says of errors.
    """
    os.setsid()  # an interrupt at the terminal is for the launcher, which stops its kernels
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # how another client would connect
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    end_with_parent()
    import matplotlib
    from ipykernel.kernelapp import IPKernelApp

    matplotlib.rcParams["backend"] = BACKEND  # it was imported before the variable was set
    sys.argv = ["ipykernel_launcher", *arguments]
    IPKernelApp.launch_instance()


def end_with_parent() -> None:
    """From now on, this process ends when the one that started it is gone, however it went."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
