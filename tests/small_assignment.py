"""A book of one tiny chapter with two graded exercises, for the tests of the classroom."""

from pathlib import Path

from sqlalchemy import Engine, event

CHAPTER, OTHER = "01_tiny", "02_other"


@event.listens_for(Engine, "connect")
def _no_test_survives_a_power_cut(connection, _) -> None:
    """A gradebook commits after every cell, and a busy disk takes its time for each."""
    connection.execute("PRAGMA synchronous=OFF")


HEAD = """# %% [markdown]
# # Exercises: Tiny

# %% tags=["parameters", "hide-input"]
profile: str = "quick"
seed: int = 0
device: str = "cpu"
overrides: dict = {}
"""

EXERCISES = '''
# %% tags=["assignment", "hide-input"]
import math

# %% tags=["assignment-parameters", "hide-input"]
SEED = 0

# %% [markdown] exercise="double"
# ```{exercise-start} Twice
# :label: ex-tiny-double
# ```
#
# Write `double(number)`, which returns twice a number; see {prf:ref}`thm-tiny`.
#
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="double"
# ```{solution-start} ex-tiny-double
# :class: dropdown
# ```
# Adding a number to itself doubles it.

# %% tags=["solution"] exercise="double"
def double(number):
    """Twice a number."""
    ### BEGIN SOLUTION
    doubled_here = number + number
    return doubled_here
    ### END SOLUTION


# %% tags=["tests"] exercise="double" points=1
assert double(2) == 4, "twice two is four"

# %% tags=["hidden-tests"] exercise="double" points=3
# Criterion: twice any number, also a negative one
assert double(-1.5) == -3
assert double(1000 + SEED) == 2000 + 2 * SEED

# %% [markdown] tags=["solution-text"] exercise="double"
# ```{solution-end}
# ```

# %% [markdown] exercise="root-sum"
# ```{exercise-start} A sum of roots
# :label: ex-tiny-root-sum
# ```
# Write `root_sum(numbers)`: the sum of the square roots, zero for an empty list.
# ```{exercise-end}
# ```

# %% tags=["solution"] exercise="root-sum"
def root_sum(numbers):
    """Sum of the square roots of numbers."""
    ### BEGIN SOLUTION
    return sum(math.sqrt(number) for number in numbers)
    ### END SOLUTION


# %% tags=["tests"] exercise="root-sum" points=2
assert root_sum([4, 9]) == 5

# %% tags=["hidden-tests"] exercise="root-sum" points=2
# Criterion: zero for an empty list
assert root_sum([]) == 0, "the empty sum is zero"

# %% tags=["hidden-tests"] exercise="root-sum" points=4
# Criterion: roots that are no whole numbers
assert abs(root_sum([2.0, 2.0]) - 2 * 2**0.5) < 1e-12

'''

WRONG = """
# %% exercise="double" mistake="squares" points=1
def double(number):
    return number**2


# %% exercise="root-sum" mistake="root of the sum" points=2
def root_sum(numbers):
    return sum(numbers) ** 0.5


# %% exercise="root-sum" mistake="the visible number" points=2
def root_sum(numbers):
    return 5
"""


def source(exercises: str = EXERCISES) -> str:
    """The exercises notebook of the tiny chapter."""
    return HEAD + exercises


def make(root: Path, exercises: str = EXERCISES, wrong: str = WRONG) -> Path:
    """Write the book under ``root``, with a second chapter of the same exercises, and return ``root``."""
    (root / "tests" / "wrong_answers").mkdir(parents=True)
    (root / "_toc.yml").write_text("format: jb-book\nroot: book/index\n", encoding="utf-8")
    for chapter in (CHAPTER, OTHER):
        (root / "book" / chapter).mkdir(parents=True)
        (root / "book" / chapter / "evidence.py").write_text("# %% [markdown]\n# # Tiny\n", encoding="utf-8")
        (root / "book" / chapter / "exercises.py").write_text(source(exercises), encoding="utf-8")
        (root / "tests" / "wrong_answers" / f"{chapter}.py").write_text(wrong, encoding="utf-8")
    return root
