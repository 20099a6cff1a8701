"""A number for each student, from which the exercises draw theirs: ``SEED`` in the parameters cell.

It follows from the name and from a secret of the course, so that it is the same on every machine,
and of no use to whoever lacks the secret.
"""

import hashlib
import re
import unicodedata
from pathlib import Path

SECRET = "secret.txt"
LARGEST_SEED = 10**6
_SEED = re.compile(r"^SEED\s*=\s*(-?\d+)", re.M)


def given(parameters: str) -> int | None:
    """The number that a parameters cell sets; None where it sets none."""
    found = _SEED.search(parameters)
    return int(found[1]) if found else None


def with_seed(parameters: str, seed: int) -> str:
    """The parameters cell with another number after ``SEED =``."""
    return _SEED.sub(f"SEED = {seed}", parameters, count=1)


def read_secret(folder: Path) -> str:
    """The secret of a course; empty where every student has the same number."""
    file = folder / SECRET
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""


def seed_of(secret: str, student: str) -> int | None:
    """A student's own number; None where there is no secret."""
    if not secret:
        return None
    name = unicodedata.normalize("NFC", student).strip()
    return int.from_bytes(hashlib.sha256(f"{secret}\n{name}".encode()).digest()[:8]) % LARGEST_SEED
