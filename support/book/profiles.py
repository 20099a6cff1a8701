"""Profiles: one chapter at three sizes. ``data/profiles/<chapter>.yml`` holds each parameter's
type, bounds, meaning and three values.

The fields of a sheet become a model that is typed and frozen, so a misspelt name or an impossible
value is refused, in one line, before anything runs.
"""

import difflib
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    TypeAdapter,
    ValidationError,
    create_model,
    model_validator,
)

from support.common import paths

SIZES = ("quick", "standard", "paper")  # smallest first
Size = Literal["quick", "standard", "paper"]
NOTHING: Mapping[str, Any] = MappingProxyType({})
_TYPES = {"int": int, "float": float, "bool": bool, "str": str}


class ProfileError(ValueError):
    """An unknown chapter, profile or field, or a value that its field does not allow. The message
    is one line."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # ten times faster where compiled
    """YAML 1.2's idea of a scalar (1e-3 is a number, ``no`` is a word), and no key given twice."""

    yaml_implicit_resolvers: ClassVar[dict] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := sorted({str(key) for key in keys if keys.count(key) > 1}):
            raise yaml.constructor.ConstructorError(
                None, None, f"key given twice: {', '.join(twice)}", node.start_mark
            )
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"^(?:null|~|)$", ["n", "~", ""]),
    ("bool", r"^(?:true|false)$", ["t", "f"]),
    ("int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.?[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan)$",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)
# PyYAML's constructor reads 010 as octal; here it is ten, as in YAML 1.2.
_Loader.add_constructor(
    "tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node))
)


def parse_yaml(text: str) -> Any:
    """The value of a YAML text by the rules above.

    Raises:
        yaml.YAMLError: not YAML, or a key given twice.
    """
    return yaml.load(text, _Loader)


def near(word: str, known: list[str] | tuple[str, ...]) -> str:
    """``"did you mean ...? "`` when a known word is close, else nothing."""
    found = difflib.get_close_matches(word, known, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(found)}? " if found else ""


def first_problem(error: ValidationError) -> str:
    """The first of pydantic's complaints as one line: where, what, and what was given."""
    problem = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, problem["loc"]))
    message = problem["msg"].removeprefix("Value error, ").replace("\n", " ")
    given = (
        ""
        if isinstance(problem["input"], dict | list) or problem["type"] == "missing"
        else f", given {problem['input']!r:.60}"
    )
    return f"{where}: {message}{given}".removeprefix(": ")


class Row(BaseModel):
    """One field of a sheet: its type, its bounds, what it means, and its value at each profile."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    type: Literal[
        "int", "float", "bool", "str", "list[int]", "list[float]", "list[bool]", "list[str]"
    ]
    help: Annotated[str, Field(min_length=1)]
    min: int | float | None = None
    max: int | float | None = None
    choices: Annotated[list[Any], Field(min_length=1)] | None = None
    quick: Any
    standard: Any
    paper: Any

    @model_validator(mode="after")
    def _its_values_are_allowed(self) -> "Row":
        try:
            allowed = TypeAdapter(self.annotation())
            for size in SIZES:
                allowed.validate_python(getattr(self, size))
        except ValidationError as error:
            raise ValueError(f"{size}: {first_problem(error)}") from error
        except TypeError as error:  # bounds of a word
            raise ValueError("min and max are for numbers") from error
        return self

    def annotation(self) -> Any:
        """The pydantic type: strict, bounded, finite; lists are tuples of at least one value."""
        kind = self.type.removeprefix("list[").removesuffix("]")
        finite = {"allow_inf_nan": False} if kind == "float" else {}
        one: Any = Annotated[_TYPES[kind], Field(strict=True, ge=self.min, le=self.max, **finite)]
        if self.choices:
            one = Literal[tuple(self.choices)]
        several = Annotated[tuple[one, ...], Field(strict=False, min_length=1)]
        return several if self.type != kind else one


class Estimate(BaseModel):
    """What a run needs: minutes, gigabytes of memory, megabytes of disk; and who says so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    minutes: PositiveFloat
    memory_gb: PositiveFloat
    disk_mb: PositiveFloat
    source: str = "declared in the profile"


class Sheet(BaseModel):
    """A whole profile file: the fields, and what each profile is expected to need."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    fields: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Row]
    estimate: dict[Size, Estimate]

    @model_validator(mode="after")
    def _complete(self) -> "Sheet":
        seeds = self.fields.get("seeds")
        if seeds is None or seeds.type != "int" or seeds.min is None or seeds.min < 1:
            raise ValueError("a field `seeds` of type int with min 1 is required")
        if taken := [name for name in self.fields if hasattr(Profile, name)]:
            raise ValueError(f"names that a profile needs for itself: {', '.join(taken)}")
        if missing := [size for size in SIZES if size not in self.estimate]:
            raise ValueError(f"no estimate for {', '.join(missing)}")
        return self


class Profile(BaseModel):
    """The values that a chapter runs with: one attribute per field of its sheet, frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = ""  # quick, standard or paper
    chapter: ClassVar[str] = ""

    seeds: int


def folder() -> Path:
    """Where the sheets lie."""
    return paths.root() / "data" / "profiles"


def chapters() -> list[str]:
    """Names of the chapters that have a sheet, in order."""
    return sorted(file.stem for file in folder().glob("*.yml"))


def sheet(chapter: str) -> Sheet:
    """The sheet of a chapter.

    Raises:
        ProfileError: no such chapter, or a sheet that breaks the schema; the message names the file
            and the field.
    """
    file = folder() / f"{chapter}.yml"
    if chapter not in (known := chapters()):
        raise ProfileError(
            f"unknown chapter {chapter!r}: {near(chapter, known)}chapters with a profile: "
            f"{', '.join(known) or 'none'}"
        )
    return _parsed(file.name, file.read_text(encoding="utf-8"))


@lru_cache(maxsize=64)  # each page and each record asks, and reading YAML takes long
def _parsed(name: str, text: str) -> Sheet:
    try:
        return Sheet.model_validate(parse_yaml(text))
    except yaml.YAMLError as error:
        raise ProfileError(f"{name} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise ProfileError(f"{name}: {first_problem(error)}") from error


def load(chapter: str, profile: str = "quick", overrides: Mapping[str, Any] = NOTHING) -> Profile:
    """The parameters of a chapter at a profile, with some of them changed.

    Args:
        chapter: for example ``"01_softmax_kmeans"``.
        profile: ``"quick"``, ``"standard"`` or ``"paper"``.
        overrides: field name -> value, for example ``{"pgd_steps": 100}``; the same bounds apply.

    Returns:
        A frozen model with one attribute per field; ``.name`` and ``.chapter`` say what it is.

    Raises:
        ProfileError: an unknown chapter, profile or field, or a value that is not allowed.
    """
    rows = sheet(chapter).fields
    if profile not in SIZES:
        raise ProfileError(
            f"unknown profile {profile!r}: {near(str(profile), SIZES)}there are {', '.join(SIZES)}"
        )
    if not isinstance(overrides, Mapping):
        raise ProfileError(
            f"overrides must map field names to values, given {type(overrides).__name__}"
        )
    for name in overrides:
        if name not in rows:
            raise ProfileError(
                f"{chapter} has no field {name!r}: {near(str(name), list(rows))}fields: "
                f"{', '.join(rows)}"
            )
    model = create_model(
        f"Profile_{profile}",
        __base__=Profile,
        **{name: (row.annotation(), Field(description=row.help)) for name, row in rows.items()},
    )
    model.name, model.chapter = profile, chapter
    values = {name: getattr(row, profile) for name, row in rows.items()} | dict(overrides)
    try:
        return model(**values)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise ProfileError(f"{first_problem(error)} ({rows[name].help})") from error


def check_seed(seed: int) -> None:
    """Refuse what is not a seed.

    Raises:
        ProfileError: not an integer from 0 to 2**31 - 1.
    """
    if type(seed) is not int or not 0 <= seed < 2**31:
        raise ProfileError(
            f"seed = {seed!r} is not allowed: wants an integer from 0 to {2**31 - 1}"
        )


def parse_override(text: str) -> tuple[str, Any]:
    """``"name=value"`` from a command line as a pair; the value is read as YAML: ``3``, ``1e-3``,
    ``true``, ``lenet``, ``[0.1, 0.2]``.

    Raises:
        ProfileError: no ``=``, no name, or a value that is not YAML.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ProfileError(f"--set {text!r}: wants name=value, for example --set seeds=5")
    try:
        return name.strip(), parse_yaml(value)
    except yaml.YAMLError as error:
        raise ProfileError(
            f"--set {text!r}: the value is not a number, a word or a list like [0.1, 0.2]"
        ) from error
