"""Which students' functions are alike: the same code but for names, comments and layout."""

import builtins
import io
import itertools
import keyword
import tokenize
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

_LENGTH = 5  # tokens of a piece that two answers are compared by
_LEAST = 60  # pieces: shorter answers are alike by themselves
_ALIKE = 0.8  # of the pieces of both that both have
_COMMON = 0.2  # of the class: what that many write is the natural answer
_KEPT = {*keyword.kwlist, *dir(builtins)}


class Pair(NamedTuple):
    """Two students, and the exercises in which their answers are alike."""

    one: str
    other: str
    exercises: tuple[str, ...]


def pieces(source: str) -> frozenset[tuple[str, ...]]:
    """What answers are compared by: runs of tokens, without comments and documentation, in which
    each name stands as the number of its first use; none of code that is no Python."""
    words: list[str] = []
    names: dict[str, str] = {}
    before = tokenize.NEWLINE
    try:
        for kind, word, *_ in tokenize.generate_tokens(io.StringIO(source).readline):
            statement = before in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
            if kind in (tokenize.COMMENT, tokenize.NL):
                continue
            if kind == tokenize.NAME and word not in _KEPT and words[-1:] != ["."]:
                word = names.setdefault(word, f"name {len(names)}")
            if word.strip() and not (kind == tokenize.STRING and statement):
                words.append(word)
            before = kind
    except (SyntaxError, tokenize.TokenError):
        return frozenset()
    return frozenset(zip(*(words[start:] for start in range(_LENGTH)), strict=False))


def pairs(answers: Mapping[str, Mapping[str, str]]) -> list[Pair]:
    """Pairs of students to look at, the most alike first. It is no verdict.

    Args:
        answers: by student and exercise, the code.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for exercise in dict.fromkeys(name for own in answers.values() for name in own):
        known = {student: pieces(own.get(exercise, "")) for student, own in answers.items()}
        long = {student: mine for student, mine in known.items() if len(mine) >= _LEAST}
        alike = [
            (one, other)
            for one, other in itertools.combinations(long, 2)
            if len(long[one] & long[other]) >= _ALIKE * len(long[one] | long[other])
        ]
        count = Counter(itertools.chain.from_iterable(alike))
        most = max(3, _COMMON * len(known))
        for pair in alike:
            if max(map(count.get, pair)) <= most:
                found.setdefault(pair, []).append(exercise)
    made = [Pair(*pair, tuple(exercises)) for pair, exercises in found.items()]
    return sorted(made, key=lambda pair: (-len(pair.exercises), pair))
