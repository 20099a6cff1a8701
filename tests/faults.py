"""What machines do to a book, what must be seen of it, and that nothing is lost: ``make faults`` prints the table.

Each fault is one row of :data:`FAULTS`: how it is brought about, the command that meets it, and what must be seen. One runner
(:func:`meet`) gives every fault a copy of a tiny book that was run and recorded, looks at what the command says, takes the fault
away, runs the chapter once more, and compares every number with those from before. ``tests/test_faults.py`` takes the small ones.
"""

import contextlib
import ctypes
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import tiny_book

PACKAGE = Path(__file__).resolve().parents[1]
POSIX = os.name == "posix"
PATIENCE = 900  # seconds for any command; no fault is about speed
RUN = ("run", "01", "--force", "--part", "exercises")
AT_ONCE = '# %% tags=["hide-input"]\nfrom support'  # where a cell may stand that wants no seconds for imports
UNTOLD = re.compile(r"Traceback \(most recent call last\)|Error in sys\.excepthook|Exception ignored")


@dataclasses.dataclass
class Place:
    """A copy of the book, and how it is worked on."""

    folder: Path
    root: Path
    environment: dict[str, str]
    options: dict = dataclasses.field(default_factory=dict)
    python: str = sys.executable

    def start(self, *command: str) -> subprocess.Popen:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": POSIX}
        words = [self.python, "-m", "support", *command]
        return subprocess.Popen(words, cwd=self.folder, env=self.environment, **pipes, **self.options)

    def ask(self, *command: str) -> tuple[int, str]:
        """The exit status and what was said, decoded as no terminal would."""
        process = self.start(*command)
        said, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, said.decode("utf-8", errors="replace")

    def file(self, name: str) -> Path:
        return self.root / name

    def found(self) -> dict[str, object]:
        """What each run and record says: all that no repetition may change. Raises where one cannot be read."""
        runs = {}
        for base in ("data/runs", "_build/runs"):
            for file in self.file(base).rglob("*.json"):
                told = json.loads(file.read_text(encoding="utf-8"))
                runs[file.relative_to(self.root).as_posix()] = [told[name] for name in ("outputs", "claims", "kept", "parameters")]
        for file in self.root.rglob("*.ipynb"):
            json.loads(file.read_text(encoding="utf-8"))
        return runs


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing that a machine does.

    Attributes:
        name: what it is.
        seen: patterns that must all be in what the command says.
        code: its exit status.
        inject: changes the place; what it yields to is the command. None: only the environment is changed.
        environment: variables that are set, or taken away (None).
        command: of ``python -m support``.
        meets: how the fault is met where one command is not enough; gives the exit status and what is seen.
        small: whether ``make test`` has it too.
    """

    name: str
    seen: str | tuple[str, ...]
    code: int = 0
    inject: Callable[[Place], object] | None = None
    environment: dict[str, str | None] = dataclasses.field(default_factory=dict)
    command: tuple[str, ...] = RUN
    meets: Callable[[Place], tuple[int, str]] | None = None
    small: bool = False


class Absent(Exception):
    """This machine cannot do that; why."""


# --- how faults are brought about ---------------------------------------------------------------------------------------------------


def ordinary() -> None:
    """Called in a new process: the administrator, whom no permission stops, is stopped like anybody else."""
    if os.geteuid() == 0 and sys.platform == "linux":
        ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


def locked(*names: str) -> Callable[[Place], contextlib.AbstractContextManager]:
    """These folders of the book, with all in them, take no file."""

    @contextlib.contextmanager
    def inject(place: Place) -> Iterator[None]:
        if not POSIX:
            raise Absent("Windows has no read-only folders")
        folders = [inner for name in names for inner in (place.file(name), *place.file(name).rglob("*")) if inner.is_dir()]
        for folder in folders:
            folder.chmod(0o555)
        place.options["preexec_fn"] = ordinary
        yield
        place.options.clear()
        for folder in folders:
            folder.chmod(0o755)

    return inject


def small_files(size: int) -> Callable[[Place], contextlib.AbstractContextManager]:
    """No file may be larger: what a full disk is where none can be mounted."""

    @contextlib.contextmanager
    def inject(place: Place) -> Iterator[None]:
        try:
            import resource
        except ImportError:
            raise Absent("Windows has no limit for files") from None
        place.options["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        yield
        place.options.clear()

    return inject


def full_disk(pages: int) -> Callable[[Place], contextlib.AbstractContextManager]:
    """The output lies on a file system of its own, on which so many pages of 4 kB are left."""

    @contextlib.contextmanager
    def inject(place: Place) -> Iterator[None]:
        disk = place.folder / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
        if not POSIX or subprocess.run(mount, capture_output=True).returncode:
            raise Absent("needs the right to mount a small tmpfs")
        try:
            shutil.copytree(place.file("_build"), disk / "output")
            (disk / "output" / "cache").mkdir()
            place.environment["BOOK_OUTPUT"] = str(disk / "output")
            (disk / "filler").write_bytes(b"\0" * (shutil.disk_usage(disk).free - 4096 * pages))
            yield
            shutil.rmtree(place.file("_build"))
            shutil.copytree(disk / "output", place.file("_build"))
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    return inject


def sparse(*sizes: tuple[str, int]) -> Callable[[Place], None]:
    """A folder of data sets with files of these sizes, which hold nothing."""

    def inject(place: Place) -> None:
        for name, size in sizes:
            file = place.folder / "sets" / "MNIST" / "raw" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            os.truncate(file, size)
        place.environment["BOOK_DATA"] = str(place.folder / "sets")

    return inject


WHOLE = (("train-images-idx3-ubyte", 47_040_016), ("train-labels-idx1-ubyte", 60_008),
         ("t10k-images-idx3-ubyte", 7_840_016), ("t10k-labels-idx1-ubyte", 10_008))  # fmt: skip
SHORT = (WHOLE[0][0], 1_000), *WHOLE[1:]
ON_MNIST = (*RUN[:2], "--force", "--part", "evidence", "--set", "data=mnist")


def changed(name: str, old: str, new: str) -> Callable[[Place], contextlib.AbstractContextManager]:
    """A file of the book says something else."""

    @contextlib.contextmanager
    def inject(place: Place) -> Iterator[None]:
        before = place.file(name).read_text(encoding="utf-8")
        assert old in before
        place.file(name).write_text(before.replace(old, new), encoding="utf-8")
        yield
        place.file(name).write_text(before, encoding="utf-8")

    return inject


def another(name: str, part: str, old: str, new: str) -> Callable[[Place], contextlib.AbstractContextManager]:
    """A second chapter beside the first, with something wrong in it."""

    @contextlib.contextmanager
    def inject(place: Place) -> Iterator[None]:
        folder, sheet = place.file(f"book/{name}"), place.file(f"data/profiles/{name}.yml")
        shutil.copytree(place.file(f"book/{tiny_book.CHAPTER}"), folder, ignore=shutil.ignore_patterns("*.ipynb"))
        shutil.copy(place.file(f"data/profiles/{tiny_book.CHAPTER}.yml"), sheet)
        for file in folder.iterdir():
            file.write_text(file.read_text(encoding="utf-8").replace(tiny_book.CHAPTER, name), encoding="utf-8")
        with changed(f"book/{name}/{part}.py", old, new)(place):
            yield
        shutil.rmtree(folder)
        sheet.unlink()

    return inject


def moved(name: str) -> Callable[[Place], None]:
    """The book lies in a folder of another name."""

    def inject(place: Place) -> None:
        place.root = place.root.rename(place.folder / name)
        place.environment["BOOK_ROOT"] = str(place.root)

    return inject


def written(name: str, text: str, variable: str = "") -> Callable[[Place], None]:
    """A file beside the book, which a variable may name."""

    def inject(place: Place) -> None:
        file = place.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        if variable:
            place.environment[variable] = str(file)

    return inject


def foreign(place: Place) -> None:
    """Somebody else's repository around the book, of which git is told too, as a hook of it would be."""
    if not shutil.which("git"):
        raise Absent("no git")
    git = ["git", "-C", str(place.folder), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    place.environment |= {"GIT_DIR": str(place.folder / ".git"), "GIT_WORK_TREE": str(place.root)}


def without_git(place: Place) -> None:
    """No git on the path."""
    place.environment["PATH"] = str(place.folder / "nothing")


def python(version: str) -> Callable[[Place], None]:
    """Another Python, where it is there with what the book needs."""

    def inject(place: Place) -> None:
        found = shutil.which(f"python{version}")
        needs = "import papermill, pydantic, safetensors, sklearn, torch, typer"
        if found is None or subprocess.run([found, "-c", needs], capture_output=True).returncode:
            raise Absent(f"no Python {version} with the book's libraries")
        place.python = found

    return inject


# --- how faults are met that one command does not meet ------------------------------------------------------------------------------


def killed(place: Place) -> tuple[int, str]:
    """SIGKILL of the run and its kernel at five random moments."""
    if not POSIX:
        raise Absent("Windows has no SIGKILL")
    started = time.monotonic()
    place.ask(*RUN)
    length, moments = time.monotonic() - started, random.Random(time.time())
    for _ in range(5):
        process = place.start(*RUN)
        time.sleep(moments.uniform(0, 1.1 * length))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    status, said = place.ask(*RUN)
    left = list((place.folder / "temporary").glob("book-run-*"))
    return status, f"{said.strip()}; {len(left)} folders left"


def at_once(place: Place) -> tuple[int, str]:
    """Two runs of one chapter at the same time."""
    processes = [place.start(*RUN) for _ in range(2)]
    said = [process.communicate(timeout=PATIENCE)[0].decode() for process in processes]
    return max(process.returncode for process in processes), " | ".join(said)


def provenance(place: Place) -> tuple[int, str]:
    """The commit that a run writes down."""
    status, said = place.ask(*RUN)
    told = json.loads(place.file("_build/runs/quick/01_tiny/exercises.json").read_text(encoding="utf-8"))
    return status, f"{said.strip()}; commit {told['commit']}"


DONE = r"01_tiny at quick: done in \d+ s"
NARROW = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
IN_FULL = ("score", "--full")
START = "raise SystemExit('a start-up file of this machine')"
FAULTS = [
    Fault("SIGKILL at random moments", rf"{DONE}.*; 0 folders left", meets=killed),
    Fault("a kernel that is killed", "its kernel died; too little memory.*; a rerun continues", 1, inject=changed(
          "book/01_tiny/exercises.py", AT_ONCE, f"# %%\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n\n{AT_ONCE}")),
    Fault("two runs at once", rf"{DONE}.*{DONE}", meets=at_once),
    Fault("a full disk", r"No space left on device.*free some space", 2, full_disk(0)),
    Fault("a disk that fills up in a run", r"exercises\.(ipynb|json) cannot be used \(No space left on device.*a rerun", 1, full_disk(2)),
    Fault("no file above 4 kB", r"File too large.*free some space", 1, small_files(4096)),
    Fault("a full disk for the verdicts", r"File too large.*free some space", 2, small_files(100), command=("score", "--write")),
    Fault("a read-only _build", r"Permission denied.*or set BOOK_OUTPUT", 2, locked("_build"), small=True),
    Fault("pages into a read-only _build", r"Permission denied.*or set BOOK_OUTPUT", 2, locked("_build"), command=("build",), small=True),
    Fault("a read-only cache", r"Permission denied.*or set BOOK_CACHE", 2, locked("data/cache")),
    Fault("a read-only checkout", r"Permission denied.*or set BOOK_OUTPUT", 2, locked("."), {"BOOK_CACHE": "../cache"}),
    Fault("a read-only checkout, output elsewhere", DONE, 0, locked("."), {"BOOK_OUTPUT": "../output", "BOOK_CACHE": None}),
    Fault("read-only records", r"Permission denied.*make it writable", 2, locked("data"), command=("score", "--write")),
    Fault("truncated data", r"train-images-idx3-ubyte is truncated: 1000 of", 2, sparse(*SHORT), command=ON_MNIST, small=True),
    Fault("swapped data", r"train-images-idx3-ubyte is corrupt: its sha256", 2, sparse(*WHOLE), command=ON_MNIST),
    Fault("a damaged manifest", r"lesson\.json is not a manifest", 1, command=("score", "--check"), small=True,
          inject=changed("data/runs/quick/01_tiny/lesson.json", "{", "[")),
    Fault("an ASCII terminal", r"accuracy is kept", 0, environment={**NARROW, "PYTHONIOENCODING": "ascii"}, command=IN_FULL, small=True),
    Fault("a cp1252 terminal", r"accuracy is kept", 0, environment={**NARROW, "PYTHONIOENCODING": "cp1252"}, command=IN_FULL),
    Fault("a run on an ASCII terminal", DONE, 0, environment={**NARROW, "PYTHONIOENCODING": "ascii"}),
    Fault("a path of blanks, brackets and accents", DONE, 0, moved("a [bóok] & 本 more")),
    Fault("that path on an ASCII terminal", DONE, 0, moved("a [bóok] & 本 more"), {**NARROW, "PYTHONIOENCODING": "ascii"}),
    Fault("no HOME", DONE, 0, environment={"HOME": None, "USERPROFILE": None, "XDG_CONFIG_HOME": None, "XDG_CACHE_HOME": None}),
    Fault("no git", rf"{DONE}.*; commit None", 0, without_git, meets=provenance),
    Fault("a foreign repository around it", rf"{DONE}.*; commit None", 0, foreign, meets=provenance),
    Fault("warnings are errors", DONE, 0, environment={"PYTHONWARNINGS": "error"}),
    Fault("PYTHONOPTIMIZE", DONE, 0, environment={"PYTHONOPTIMIZE": "2"}),
    Fault("a start-up file of Python", DONE, 0, written("startup.py", START, "PYTHONSTARTUP")),
    Fault("a start-up file of IPython", DONE, 0, written("home/.ipython/profile_default/startup/00.py", START)),
    Fault("a chapter that is no Python, listed", r"01_tiny: Tiny.*02_next/evidence\.py is no Python: line \d+", 1,
          another("02_next", "evidence", "p = run.profile", "p = ("), command=("list",), small=True),
    Fault("a chapter that is no Python, scored", r"tiny2020\.thm1 +reproduced", 0,
          another("02_next", "evidence", "p = run.profile", "p = ("), command=("score",)),
    Fault("a chapter that is no Python, run", (r"02_next/evidence\.py is no Python", DONE), 1,
          another("02_next", "evidence", "p = run.profile", "p = ("), command=("run", "--force", "--part", "exercises")),
    Fault("a chapter without its parameters, run", (r"02_next/lesson\.py: its cell tagged", DONE), 1,
          another("02_next", "lesson", "overrides: dict = {}", "more: dict = {}"), command=("run", "--force", "--part", "exercises")),
    Fault("a claim that is not stated any more", r"01_tiny never states tiny2020\.thm1", 2, command=RUN, small=True,
          inject=changed("book/01_tiny/evidence.py", 'run.claim("tiny2020.thm1", error=2 * 2 - 4)', "pass")),
    Fault("a chapter over its time", r"because its time was over; a rerun continues", 1, command=(*RUN, "--limit", "0.01")),
    *(Fault(f"Python {version}", DONE, 0, python(version)) for version in ("3.11", "3.12", "3.13")),
]  # fmt: skip


# --- the runner ---------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Seen:
    """What came of a fault: whether it was as it must be, the line that tells, and what was lost."""

    as_wanted: bool
    line: str
    lost: str


def prepare(folder: Path) -> Path:
    """A tiny book that was run and recorded."""
    root = tiny_book.make(folder / "book")
    status, said = _place(folder, root).ask("run", "--record")
    assert status == 0, said
    _place(folder, root).ask("score", "--write")
    return root


def _place(folder: Path, root: Path) -> Place:
    (folder / "temporary").mkdir(exist_ok=True)
    (folder / "home").mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BOOK_", "GIT_", "IPYTHON", "JUPYTER"))}
    own = {"BOOK_ROOT": str(root), "PYTHONPATH": str(PACKAGE), "TMPDIR": str(folder / "temporary"), "HOME": str(folder / "home")}
    return Place(folder, root, kept | own | {"BOOK_PROGRESS": "off", "OMP_NUM_THREADS": "1"})


def meet(fault: Fault, recorded: Path, folder: Path) -> Seen:
    """Bring a fault about in a copy of a recorded book, and look.

    Args:
        recorded: the book, which is left as it is.
        folder: an empty one.
    """
    root = shutil.copytree(recorded, folder / "book", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "data" / "cache").mkdir(exist_ok=True)
    place = _place(folder, root)
    before = place.found()
    for name, value in fault.environment.items():
        place.environment.pop(name, None)
        if value is not None:
            place.environment[name] = value.replace("..", str(folder))
    injected = fault.inject(place) if fault.inject else None
    stay = injected if hasattr(injected, "__enter__") else contextlib.nullcontext()
    with stay:
        status, said = fault.meets(place) if fault.meets else place.ask(*fault.command)
    said = " ".join(said.split())
    problems = [f"exit status {status}"] * (status != fault.code)
    problems += ["an error that nobody told"] * bool(UNTOLD.search(said))
    wanted = (fault.seen,) if isinstance(fault.seen, str) else fault.seen
    problems += [f"not seen: {words}" for words in wanted if not re.search(words, said)]
    place = dataclasses.replace(_place(folder, place.root), python=sys.executable)
    lost = sorted(name for name, told in before.items() if place.found().get(name) != told)
    lost += [file.name for file in place.folder.rglob("*.tmp")]
    return Seen(not problems, "; ".join([said[:200], *problems]), ", ".join(lost) or "nothing")


def main(words: list[str]) -> int:
    """Meet the faults whose names hold one of the words, all without one, and print the table."""
    chosen = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    bad = 0
    with tempfile.TemporaryDirectory(prefix="book-faults-") as name:
        recorded = prepare(Path(name))
        for number, fault in enumerate(chosen):
            folder = Path(name) / str(number)
            folder.mkdir()
            try:
                seen = meet(fault, recorded, folder)
            except Absent as reason:
                seen = Seen(True, f"not here: {reason}", "–")
            wrong = not seen.as_wanted or seen.lost not in ("nothing", "–")
            bad += wrong
            print(f"{'FAILED ' * wrong}{fault.name} | {seen.line} | lost: {seen.lost}", flush=True)
    print(f"{len(chosen)} faults, {bad} not met as they must be")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
