"""What students have tried, and might try: no code of theirs reaches a test, a solution, a grade, or anything that is not their own."""

import copy
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import small_assignment
from nbformat.v4 import new_code_cell
from small_assignment import CHAPTER

pytest.importorskip("nbgrader")

from support.classroom import exercises, judge, notebook, sandbox, wire

shut_in = pytest.mark.skipif(not sandbox.tool(), reason="needs bubblewrap (bwrap), which shuts students' code in")
RIGHT = {
    "double": "def double(number):\n    return number + number",
    "root-sum": "def root_sum(numbers):\n    return sum(n**0.5 for n in numbers)",
}
SECONDS = 60


@pytest.fixture(scope="module")
def instructor(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOK_ROOT", str(small_assignment.make(tmp_path_factory.mktemp("book"))))
        yield notebook.instructor(exercises.read(CHAPTER))


def judged(instructor, before="", *, seconds=SECONDS, after="", **answers):
    """The points of each exercise, the judged notebook and the report: for answers, with a cell of the student's own at the start."""
    handed_in = notebook.answered(instructor, RIGHT | {name.replace("_", "-"): code for name, code in answers.items()})
    if before:
        handed_in.cells.insert(0, new_code_cell(before))
    if after:
        handed_in.cells.append(new_code_cell(after))
    report = judge.judge(handed_in, instructor, seconds=seconds)
    points = dict.fromkeys(RIGHT, 0)
    for cell in handed_in.cells:
        if cell.metadata.get(judge.VERDICT, {}).get("error") == "":
            points[notebook.exercise_of(notebook.grade_id(cell))] += notebook.marks(cell)["points"]
    return points, handed_in, report


NOTHING = "def double(number):\n    return None"
# Answers to `double` that are worth nothing, with what stands in a cell before.
CHEATS = {
    "a transformer that empties the tests": (
        "import ast\nclass Pass(ast.NodeTransformer):\n    def visit_Assert(self, node):\n"
        "        return ast.copy_location(ast.Pass(), node)\n"
        "get_ipython().ast_transformers.append(Pass())",
        NOTHING,
    ),
    "another run_cell": (
        "import IPython.core.interactiveshell as i\nold = i.InteractiveShell.run_cell\n"
        "async def none(self, *a, **k):\n    return i.ExecutionResult(None)\n"
        "i.InteractiveShell.run_cell_async = none",
        NOTHING,
    ),
    "builtins of one's own": (
        "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.all = lambda x: True\nbuiltins.AssertionError = StopIteration",
        NOTHING,
    ),
    "a module that answers everything": (
        "class Any:\n    def __getattr__(self, name): return self\n    def __call__(self, *a, **k): return self\n"
        "    def __eq__(self, other): return True\n    __lt__ = __gt__ = __le__ = __ge__ = __eq__\n    def __bool__(self): return True\n"
        "    def __sub__(self, other): return self\n    __rsub__ = __abs__ = __sub__\n    __hash__ = None\n"
        "import sys\nmath = np = Any()\nsys.modules['math'] = sys.modules['numpy'] = math",
        "def double(number):\n    return math",
    ),
    "a number that equals every other": (
        "class Same(float):\n    def __eq__(self, other): return True\n    __hash__ = float.__hash__",
        "def double(number):\n    return Same(1)",
    ),
    "an array that equals every other": (
        "import numpy\nclass Same(numpy.ndarray):\n    def __eq__(self, other): return True\n    __hash__ = None",
        "def double(number):\n    return numpy.zeros(()).view(Same)",
    ),
    "a pickle": ("class Pickle:\n    def __reduce__(self): return (print, ('x',))", "def double(number):\n    return Pickle()"),
    "a function for a number": ("", "def double(number):\n    return lambda *a: True"),
    "not a number": ("", "def double(number):\n    return float('nan')"),
    "an error whose text is an error": (
        "class Bad(Exception):\n    def __str__(self): raise SystemExit",
        "def double(number):\n    raise Bad",
    ),
    "an error that no except catches": ("class Bad(BaseException):\n    pass", "def double(number):\n    raise Bad"),
    "an exit with success": ("", "def double(number):\n    raise SystemExit(0)"),
    "an assertion": ("", "def double(number):\n    raise AssertionError"),
    "messages of one's own, on every open file": (
        'import os\ndef forge():\n    for fd in range(3, 64):\n        try:\n'
        '            os.write(fd, b\'{"dict": [["value", -3.0]]}\\n\' * 9)\n'
        "        except OSError:\n            pass",
        "def double(number):\n    forge()\n    return None",
    ),
    "a message of a kind that is not known": (
        'import os\ndef forge(text):\n    for fd in range(3, 64):\n        try:\n            os.write(fd, text)\n        except OSError:\n'
        "            pass",
        'def double(number):\n    forge(b\'{"dict": [["value", {"numpy-generator": {"dict": [["bit_generator", "test"]]}}]]}\\n\')',
    ),
    "a call of the grader": (
        "import os\ndef forge(text):\n    for fd in range(3, 64):\n        try:\n            os.write(fd, text)\n        except OSError:\n"
        "            pass",
        'def double(number):\n    forge(b\'{"dict": [["call", "exit"], ["args", {"tuple": []}], ["kwargs", {"dict": []}]]}\\n\')',
    ),
    "the caller's frame": (
        "import inspect, gc",
        "def double(number):\n    for frame in inspect.stack():\n        for name, value in frame.frame.f_globals.items():\n"
        "            if isinstance(value, str) and 'assert double' in value: return eval(value.split('== ')[1])\n"
        "    for each in gc.get_objects():\n        if isinstance(each, str) and 'assert double' in each: return 4\n    return None",
    ),
    "what was entered": ("", "def double(number):\n    return 4 if any('twice two ' + 'is four' in text for text in In) else None"),
    "the driver's own functions": (
        "import sys\nmain = sys.modules['__main__']\nimport wire\nold = wire.Peer._plain\n"
        "wire.Peer._plain = lambda self, value: old(self, value) or True",
        NOTHING,
    ),
}  # fmt: skip


# Whoever replaces what runs the cells, or forges messages, may lose the other exercises; nobody wins by it.
SABOTAGE = {"another run_cell", "a module that answers everything", "builtins of one's own", "the driver's own functions"} | {
    name for name, (before, double) in CHEATS.items() if "forge" in double
}


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_gets_nothing_and_costs_no_other_exercise(name, instructor):
    before, double = CHEATS[name]
    points, *_ = judged(instructor, before, double=double)
    assert points["double"] == 0
    assert points["root-sum"] == 8 or name in SABOTAGE


def test_right_answers_get_their_points_and_no_note(instructor):
    points, handed_in, report = judged(instructor)
    assert points == {"double": 4, "root-sum": 8}
    assert (report.notes, report.lost, report.mistakes) == ([], {}, {})
    assert set(report.seconds) == set(RIGHT)
    assert not any(cell.get("outputs") for cell in handed_in.cells if notebook.marks(cell).get("grade"))


def test_a_known_mistake_is_recognised_and_no_other(instructor):
    mistaken = judged(instructor, double="def double(x):\n    return x * x", root_sum="def root_sum(n):\n    return 5")[2].mistakes
    assert mistaken == {"double": "squares", "root-sum": "the visible number"}
    assert judged(instructor, double="def double(x):\n    return x * x + 0.001")[2].mistakes == {}
    assert judged(instructor, double="def double(x):\n    raise NotImplementedError")[2].mistakes == {}


def seen_by(instructor, code: str) -> str:
    """What a cell of a student writes."""
    _, handed_in, _ = judged(instructor, code)
    return "".join(output.get("text", "") for output in handed_in.cells[0].outputs)


@shut_in
def test_the_process_sees_no_file_but_its_own(instructor, tmp_path, monkeypatch):
    secrets = [tmp_path / "gradebook.db", Path.home() / ".bashrc", Path(small_assignment.__file__)]
    secrets += [Path(exercises.__file__).parents[2] / name for name in ("book", "tests", "data")]
    secrets[0].write_text("grades", encoding="utf-8")
    monkeypatch.setenv("MY_TOKEN", "a secret of the teacher's")
    code = (
        f"import os\nprint([name for name in {[str(path) for path in secrets]!r} if os.path.exists(name)])\n"
        "print('MY_TOKEN' in os.environ)\n"
        f"try:\n    open({str(tmp_path / 'mine')!r}, 'w').write('x')\nexcept OSError as error:\n    print(type(error).__name__)\n"
        "import support\ntry:\n    open(support.__file__, 'a').write('x')\nexcept OSError as error:\n    print(type(error).__name__)\n"
        "print([name for name in os.listdir('/proc') if name.isdigit() and 'pytest' in open(f'/proc/{name}/cmdline').read()])\n"
        "open('mine', 'w').write('x')\nprint(sorted(os.listdir('.')))"
    )
    assert seen_by(instructor, code).splitlines() == ["[]", "False", "FileNotFoundError", "OSError", "[]", "['mine', 'profile_default']"]
    assert not (tmp_path / "mine").exists()


@shut_in
def test_there_is_no_network(instructor):
    code = (
        "import socket\ntry:\n    socket.create_connection(('127.0.0.1', {port}), timeout=5)\nexcept OSError as error:\n    print('none')"
    )
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        assert seen_by(instructor, code.format(port=server.getsockname()[1])).strip() == "none"


def test_the_environment_is_the_course_s(instructor, tmp_path, monkeypatch):
    start_up = tmp_path / ".ipython" / "profile_default" / "startup"
    start_up.mkdir(parents=True)
    (start_up / "left_by_somebody.py").write_text("import os\nos._exit(1)", encoding="utf-8")
    for name, value in {
        "HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path / ".ipython"), "PYTHONOPTIMIZE": "2", "OMP_NUM_THREADS": "7",
        "PYTHONSTARTUP": str(start_up / "left_by_somebody.py"), "PYTHONPATH": "/nowhere", "PYTHONWARNINGS": "error", "LANG": "C",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    points, handed_in, _ = judged(
        instructor,
        "import os, sys, math\n"
        "print(sys.flags.optimize, os.environ['OMP_NUM_THREADS'], 'PYTHONSTARTUP' in os.environ, sys.stdout.encoding)\n"
        "assert False",
    )
    assert handed_in.cells[0].outputs[0].text.startswith("0 1 False")
    assert handed_in.cells[0].outputs[-1].ename == "AssertionError"
    assert points == {"double": 4, "root-sum": 8}


HUNGRY = {
    "memory at once": ("x = bytes(10**11)", "MemoryError"),
    "processes": ("import os\nwhile True:\n    os.fork()", "processes"),
    "output": ("print('x' * 10**6)", ""),
    "a large file": ("with open('large', 'wb') as file:\n    file.write(bytes(10**8 + 1))", "OSError"),
}


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX systems")
@pytest.mark.parametrize("name", HUNGRY)
def test_what_takes_too_much_is_stopped_and_costs_nobody(name, instructor):
    code, said = HUNGRY[name]
    points, handed_in, report = judged(instructor, code)
    outputs = handed_in.cells[0].outputs
    assert said in "".join([*report.notes, *(output.get("ename", "") for output in outputs)])
    assert len("".join(output.get("text", "") for output in outputs)) < 30_000
    assert points == {"double": 4, "root-sum": 8}


@pytest.mark.skipif(os.name != "posix", reason="processes of POSIX systems")
def test_nothing_that_a_student_starts_survives(instructor):
    mark = f"98765.{os.getpid()}"  # seconds that no other run of the tests sleeps
    code = f"import subprocess\nsubprocess.Popen(['sleep', '{mark}'], start_new_session=True)"
    assert judged(instructor, code)[0] == {"double": 4, "root-sum": 8}
    deadline = time.monotonic() + 60
    while left := [each for each in psutil.process_iter(["cmdline"]) if mark in (each.info["cmdline"] or [])]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_a_flood_of_messages_ends_the_exercise(instructor):
    code = "import os\ndef double(number):\n    while True:\n        for fd in range(3, 20):\n            try:\n"
    code += "                os.write(fd, b'{}\\n' * 10**5)\n            except OSError:\n                pass"
    points, _, report = judged(instructor, double=code)
    assert points == {"double": 0, "root-sum": 8}
    assert "out of order" in report.lost["double"]


def test_a_flood_of_calls_whose_answers_nobody_reads_is_out_of_time():
    """The line to the process is full then, and the grader must not wait for it."""
    student = sandbox.Student()
    try:
        student.allow(120)
        student.run(
            "import os\ndef double(number):\n"
            '    call = b\'{"dict": [["call", "exit"], ["args", {"tuple": []}], ["kwargs", {"dict": []}]]}\\n\'\n'
            "    while True:\n        for fd in range(3, 20):\n            try:\n                os.write(fd, call)\n"
            "            except OSError:\n                pass"
        )
        student.allow(0.5)
        started = time.monotonic()
        with pytest.raises(wire.Lost, match="took too long"):
            student.peer.function("double")(2)
        assert time.monotonic() - started < 60
    finally:
        student.close()


@pytest.mark.parametrize(
    "text",
    ["", "1", "[]", "[1]", '{"a": 1}', '{"dict": 1}', '{"dict": [[{"list": []}, 1]]}', '{"value": 1, "error": 2}', "[" * 10**5,
     '{"array": ["O", [1], "AAAAAAAAAAA="]}', '{"array": ["<f8", [1000000, 1000000], ""]}', '{"tensor": ["O", [1], "AAAA", false]}',
     '{"numpy-generator": {"dict": [["bit_generator", "test"]]}}', "9" * 10_000, '{"fraction": [1, 0]}', '{"shared": "exit"}'],
)  # fmt: skip
def test_a_message_that_makes_no_sense_is_an_error(text):
    def nothing(name):
        raise NameError(name)

    peer = wire.Peer(lambda line: None, lambda: text, nothing)
    with pytest.raises((wire.Lost, NameError)):
        peer.function("double")(2)


VALUES = [
    None, True, 3, -(10**40), 2.5, float("inf"), "text", [1, [2.0, None]], (1, "a"), {"a": (1, 2), 3: [4]}, 1 + 2j, np.int64(7),
    np.arange(6).reshape(2, 3), np.float32(1.5), np.zeros((0, 3)), np.array([True, False]), np.array(3.5),
    np.arange(12.0).reshape(3, 4).T[::2],
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_cross_unchanged(value):
    import json

    peer = wire.Peer(lambda line: None, lambda: "", lambda name: None)
    (again,) = wire_values(peer, json, [value])
    assert type(again) is type(value)
    np.testing.assert_equal(again, value)
    if isinstance(value, np.ndarray):
        assert again.dtype == value.dtype


GRADER = """from support.classroom import sandbox
sandbox.tool = lambda: None
student = sandbox.Student()
student.allow(600)
student.run("1")
print(student.process.pid, flush=True)
student.run({work!r})
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no fork")
@pytest.mark.parametrize("work", ["while True: pass", "sum(range(10**12))"], ids=["in Python", "in C"])
def test_an_endless_loop_ends_with_its_grader_also_without_walls(work):
    with subprocess.Popen([sys.executable, "-c", GRADER.format(work=work)], stdout=subprocess.PIPE, text=True) as grader:
        student = psutil.Process(int(grader.stdout.readline()))
        processes = [student, *student.children()]
        time.sleep(1)
        grader.kill()
    left = psutil.wait_procs(processes, timeout=60)[1]
    for each in left:
        each.kill()
    assert left == []


def wire_values(peer, json, values):
    """Values sent to the other side and back, by a peer that echoes."""
    sent = []
    echo = wire.Peer(sent.append, lambda: json.dumps({"dict": [["value", json.loads(sent[-1])["dict"][1][1]]]}), lambda name: None)
    return echo.function("same")(*copy.deepcopy(values))


def test_gradients_cross(tmp_path):
    """Values, autograd and torch.func against the same function at home."""
    torch = pytest.importorskip("torch")
    student = sandbox.Student()
    try:
        student.allow(120)
        student.run(
            "import torch\ndef f(a, b): return (a**2 * b).sum(1), [b.detach(), 3]\n"
            "def g(h, x): return torch.func.grad(lambda z: h(z).sum())(x)"
        )
        a, b = torch.rand(4, 3, dtype=torch.float64, requires_grad=True), torch.rand(3, dtype=torch.float64, requires_grad=True)
        found, (plain, three) = student.peer.function("f")(a, b)
        slopes = torch.autograd.grad(found[1], (a, b))
        wanted = torch.autograd.grad((a**2 * b).sum(1)[1], (a, b))
        assert all(map(torch.equal, slopes, wanted)) and torch.equal(plain, b) and three == 3
        assert not plain.requires_grad
        assert torch.equal(student.peer.function("g")(lambda z: z**3, torch.ones(2)), 3 * torch.ones(2))
        generator = torch.Generator().manual_seed(3)
        student.run("def draw(g, r): return torch.rand(2, generator=g), r.random(2)")
        one, two = student.peer.function("draw")(generator, np.random.default_rng(5))
        assert torch.equal(one, torch.rand(2, generator=torch.Generator().manual_seed(3)))
        assert np.array_equal(two, np.random.default_rng(5).random(2))
    finally:
        student.close()
