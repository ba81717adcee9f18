"""The reference pages and the JSON schema of params.yaml, made from the classes and the comments.

What a key means stands once, as the comment above it in params.yaml; what it may be, in its class.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from blogtune.project.layout import markdown_table
from blogtune.project.settings import Settings

PARAMETERS = Path("docs/reference/parameters.md")
COMMANDS = Path("docs/reference/commands.md")
SCHEMA = Path("docs/params.schema.json")
_KEY = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?P<value>.*)")


def pages(root: Path) -> dict[Path, str]:
    """What each generated file of the repository at `root` should hold."""
    meanings = comments((root / "params.yaml").read_text(encoding="utf-8"))
    return {
        PARAMETERS: parameters_page(meanings),
        COMMANDS: commands_page(root),
        SCHEMA: json.dumps(schema(meanings), indent=2, ensure_ascii=False) + "\n",
    }


def comments(text: str) -> dict[str, str]:
    """The comment above each key of params.yaml, by its dotted name.

    A value without one shares that of the value above it in the same section.
    """
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    said: list[str] = []
    shared = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            said.append(line.lstrip().removeprefix("#").strip())
        elif match := _KEY.match(line):
            depth = len(match["indent"])
            path = [each for each in path if each[0] < depth] + [(depth, match["key"])]
            is_section = not match["value"].strip()
            told = " ".join(said) or ("" if is_section else shared)
            found[".".join(key for _, key in path)] = told
            said, shared = [], "" if is_section else told
        else:
            said = []
    return found


def schema(meanings: dict[str, str]) -> dict[str, Any]:
    """JSON schema of params.yaml, with which an editor completes and checks it."""
    made = Settings.model_json_schema()
    made["title"] = "blogtune's params.yaml"
    _describe(made, made.get("$defs", {}), "", meanings)
    return made


def parameters_page(meanings: dict[str, str]) -> str:
    """A table a section: key, what it may be, what it means."""
    made = Settings.model_json_schema()
    parts = ["# Parameters", _FROM.format("params.yaml and the classes that check it")]
    for section, of in made["properties"].items():
        rows = [("key", "may be", "meaning"), *_rows(of, made["$defs"], section, meanings)]
        parts += [f"## {section}", meanings.get(section, ""), markdown_table(rows, figures=False)]
    return "\n\n".join(part for part in parts if part) + "\n"


def commands_page(root: Path) -> str:
    """Make's targets, and the help of each stage and command."""
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):.*?## (.*)$", makefile, re.MULTILINE)
    rows = [("target", "what it does"), *((f"`make {name}`", told) for name, told in targets)]
    parts = ["# Commands", _FROM.format("the Makefile and each script's `--help`")]
    parts += [markdown_table(rows, figures=False)]
    scripts = [
        f"{folder}.{script.stem}"
        for folder in ("stages", "commands")
        for script in sorted((root / folder).glob("[a-z]*.py"))
    ]
    for name, told in zip(scripts, _helps(root, scripts), strict=True):
        parts += [f"## python -m {name}", f"```\n{told.strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _helps(root: Path, scripts: list[str]) -> list[str]:
    """What `--help` of each prints. One process for all: what they import takes a second."""
    command = [sys.executable, "-c", _HELPS, *scripts]
    told = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return json.loads(told.stdout)


_HELPS = """
import io, json, runpy, sys
from contextlib import redirect_stdout, suppress

told = []
scripts, sys.argv = sys.argv[1:], ["", "--help"]
for script in scripts:
    with redirect_stdout(io.StringIO()) as printed, suppress(SystemExit):
        runpy.run_module(script, run_name="__main__", alter_sys=True)
    told.append(printed.getvalue())
print(json.dumps(told))
"""
_FROM = "Made by `make reference` from {}."


def _resolved(of: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The section that a property refers to, if it is one; null beside it does not matter."""
    for each in (of, *of.get("anyOf", ())):
        if "$ref" in each:
            return definitions[each["$ref"].rpartition("/")[2]]
    return {}


def _describe(
    of: dict[str, Any], definitions: dict[str, Any], where: str, meanings: dict[str, str]
) -> None:
    for key, value in of.get("properties", {}).items():
        name = f"{where}{key}"
        if meanings.get(name):
            value["description"] = meanings[name]
        _describe(_resolved(value, definitions), definitions, f"{name}.", meanings)


def _rows(
    of: dict[str, Any], definitions: dict[str, Any], where: str, meanings: dict[str, str]
) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    for key, value in _resolved(of, definitions).get("properties", {}).items():
        name = f"{where}.{key}"
        inner = _rows(value, definitions, name, meanings)
        kind = "section" if inner else _kind(value, definitions)
        null = " or null" if inner and "anyOf" in value else ""
        rows.append((f"`{name}`", f"{kind}{null}", meanings.get(name, "").replace("|", "\\|")))
        rows += inner
    return rows


def _kind(of: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Such as "integer, at least 1"."""
    if "anyOf" in of:
        return " or ".join(_kind(each, definitions) for each in of["anyOf"])
    if "enum" in of:
        return ", ".join(f"`{each}`" for each in of["enum"])
    if "const" in of:
        return f"`{of['const']}`"
    if of.get("type") == "array":
        return f"list of {_kind(of['items'], definitions)}s"
    limits = {
        "minimum": "at least {}",
        "exclusiveMinimum": "above {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "below {}",
        "pattern": "matching `{}`",
    }
    told = [text.format(of[key]) for key, text in limits.items() if key in of]
    name = str(of.get("type", "string"))
    kind = {"string": "text", "boolean": "true or false"}.get(name, name)
    return ", ".join([kind, *told]).replace("|", "\\|")
