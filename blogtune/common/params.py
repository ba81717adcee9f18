"""Reads one section of params.yaml into a frozen, validated object.

Each section's class stands beside its verb (`blogtune/<verb>/params.py`), so that a new judging
key does not rerun the training. Every default stands in params.yaml and nowhere else: a missing
key is an error, and so is one that nobody knows.
"""

from difflib import get_close_matches
from pathlib import Path
from reprlib import Repr
from typing import TYPE_CHECKING, Annotated, Any, TypeGuard, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML, YAMLError

from blogtune.common.errors import UserError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

PARAMS_FILE = Path("params.yaml")
# What ruamel raises: ValueError as for a number of 5,000 digits or a date of a 13th month, and
# others where it does not expect what it finds.
UNREADABLE = (YAMLError, ValueError, TypeError, KeyError, AttributeError, OverflowError)
COMPARE = "`git diff params.yaml` shows what was there"
# Of a file of settings; ours have 4 levels and 11,000 characters.
MOST_LEVELS, MOST_CHARACTERS = 50, 200_000
# A value for a message: a line of it, however deep or long it is.
SHOWN = Repr()
SHOWN.maxstring = SHOWN.maxother = 200
SHOWN.maxlist, SHOWN.maxdict, SHOWN.maxlevel = 5, 5, 2
# Keys as they were called before, and as they are now (CHANGELOG.md).
RENAMED = {
    "train.trunk_cache": "train.activation_cache",
    "judge.elsewhere": "judge.other_references",
}


class Section(BaseModel):
    """Base of every section: immutable, no unknown keys, finite numbers, no conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=Section)
# The type of a whole number in params.yaml that has no limit of its own, as the number of what
# takes memory has. Without any, 2^64 overflows a seed, and 10^9 as a width ends the process.
Whole = Annotated[int, Field(le=2**31 - 1)]
# Seconds to wait: what a socket can count is less than a float can hold.
Seconds = Annotated[float, Field(gt=0.0, le=86_400.0)]


def read_params(section: str, kind: type[S], path: Path = PARAMS_FILE) -> S:
    """Return the validated section, `section` being its dotted name ("judge.model"; "": all).

    Raises UserError that names the key, its value and the remedy.
    """
    values = _descend(load_yaml(path), section, path)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        where = [section] if section else []
        raise UserError(_explain(error, values, where, kind), where=path) from error


def load_yaml(path: Path, *, comments: bool = False) -> Any:
    """Return what the file holds, with `comments` as ruamel keeps them to be written again.

    Raises UserError, in one line, for whatever ruamel makes of a file that is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
        _check_size(text)
        # YAML 1.2: 1e-5 is a number, which PyYAML reads as text.
        values = (YAML() if comments else YAML(typ="safe", pure=True)).load(text)
    except FileNotFoundError as error:
        raise UserError(
            "not found", where=path, remedy="run this from the repository's root"
        ) from error
    except RecursionError as error:
        raise UserError("nested too deeply", where=path, remedy=COMPARE) from error
    except UNREADABLE as error:
        line = SHOWN.repr(" ".join(str(error).split()))[1:-1]
        raise UserError(f"not readable as YAML: {line}", where=path) from error
    if values is None:
        raise UserError("empty", where=path, remedy=COMPARE)
    return values


def _check_size(text: str) -> None:
    """Raise RecursionError before ruamel does, which takes minutes for it."""
    depth = 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if depth > MOST_LEVELS:
            raise RecursionError
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"longer than {MOST_CHARACTERS:,} characters")


def _descend(values: Any, section: str, path: Path) -> Any:
    for name in filter(None, section.split(".")):
        if not isinstance(values, dict) or name not in values:
            raise UserError(f"{section}: missing", where=path, remedy=COMPARE)
        values = values[name]
    return values


def _explain(error: ValidationError, values: Any, where: list[str], kind: type[Section]) -> str:
    """One line for the first problem, with a guess at the key that was meant."""
    found = _by_keys(error, values)
    # A misspelt key is also a missing one: the misspelling is what the reader looks for.
    keys = min(found, key=lambda keys: found[keys][0]["type"] != "extra_forbidden")
    problems = found[keys]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    name = ".".join([*where, *keys])
    if name in RENAMED:
        return f"{name}: renamed; it is called {RENAMED[name]} now"
    return f"{name}{': ' if name else ''}{_told(problems, keys, kind)}{more}"


def _by_keys(error: ValidationError, values: Any) -> "dict[tuple[str, ...], list[ErrorDetails]]":
    """The problems by the keys that lead to them; what a union refuses has one for each member."""
    found: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for problem in error.errors():
        found.setdefault(_keys(problem, values), []).append(problem)
    # Of a union the member that was meant has its problem further inside.
    inner = {keys[:end] for keys in found for end in range(len(keys))}
    return {keys: problems for keys, problems in found.items() if keys not in inner}


def _keys(problem: "ErrorDetails", values: Any) -> tuple[str, ...]:
    """The place in the file: pydantic also names the members of a union, and says "[key]"."""
    keys: list[str] = []
    for part in problem["loc"]:
        if isinstance(values, dict) and part in values:
            values = values[part]
        elif not isinstance(part, int) and problem["type"] != "missing":
            continue
        keys.append(str(part))
    return tuple(keys)


def _told(problems: "list[ErrorDetails]", keys: tuple[str, ...], kind: type[Section]) -> str:
    problem = problems[0]
    if problem["type"] == "extra_forbidden":
        near = get_close_matches(keys[-1], _known(kind, keys[:-1]), 1)
        return f"unknown key; did you mean {near[0]}?" if near else "unknown key; remove it"
    if problem["type"] == "missing":
        return f"missing; {COMPARE}"
    first, *others = (_message(problem) for problem in problems)
    either = ", or ".join([first, *(text.removeprefix("Input should be ") for text in others)])
    # A whole section is too long for a line, and it stands in the file.
    got = "" if isinstance(problem["input"], dict) else f", got {shown(problem['input'])}"
    return f"{either}{got}"


def shown(value: Any) -> str:
    """The value in a message's one line."""
    if isinstance(value, int) and value.bit_length() > 300:
        # Python refuses to write out one of more than 4,300 digits.
        return "a huge number"
    return SHOWN.repr(value)


def _message(problem: "ErrorDetails") -> str:
    if problem["type"] == "model_type":
        return "Input should be a section with keys"
    message = problem["msg"].removeprefix("Value error, ")
    return message.replace("String should match pattern", "Input should be text like")


def _known(kind: type[Section], keys: tuple[str, ...]) -> list[str]:
    """The keys that a section knows, or none where `keys` do not lead to one."""
    for key in keys:
        annotation = kind.model_fields[key].annotation
        inner = [each for each in (annotation, *get_args(annotation)) if _is_section(each)]
        if not inner:
            return []
        kind = inner[0]
    return list(kind.model_fields)


def _is_section(annotation: Any) -> TypeGuard[type[Section]]:
    return isinstance(annotation, type) and issubclass(annotation, Section)
