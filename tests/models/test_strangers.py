"""Fuzzing: folders that strangers could have made end in a model or in one line, and they end.

Each batch of folders is looked at in a process of its own, so that a crash inside MLX or the
tokenizer is seen as what it is.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import tiny

EXAMPLES = int(os.environ.get("BLOGTUNE_FUZZ", "1000"))
BATCH = 20
SECONDS = 300
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")
ODD: list[Any] = [None, True, -1, 0, 1, 7, 2**31, 2**64, 1e308, "", "x", [], [1], {}, {"a": 1}]
PIECES = (
    *("{{", "}}", "{%", "%}", " if ", " for m in messages ", " endif ", " endfor ", "messages"),
    *("[0]", ".content", "['role']", "|trim", "|random", "|tojson", "range(9)", "+", "'a'", "~"),
    *("raise_exception('no')", "strftime_now('%s')", "loop.last", "namespace(a=1)", "__class__"),
    *("<|im_end|>", "\n", "add_generation_prompt", "/ 0", "* 9", "macro f()", "set x = "),
)

CHILD = """
import sys, traceback
from pathlib import Path
import mlx.core as mx
from blogtune.common.errors import UserError
from blogtune.models.chat import open_chat
from blogtune.models.loading import load_model, storage_dtype
from blogtune.training.examples import make_examples
from tests import tiny
for folder in map(Path, sys.argv[1:]):
    print(folder.name, "begins", flush=True)
    try:
        model = load_model(folder, mx.float32)
        chat = open_chat(model.tokenizer)
        make_examples(tiny.facts(), chat, 128, model.context)
        print(folder.name, "is a model")
    except UserError as error:
        line = str(error)
        print(folder.name, "is refused:" if "\\n" not in line else "IN TWO LINES:", ascii(line))
    except BaseException:
        traceback.print_exc()
        print(folder.name, "RAISES")
"""


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a JSON value something can be exchanged; of long lists the first three."""
    found = [path] if path else []
    items: Any = ()
    if isinstance(value, dict):
        items = list(value.items())[:40]
    elif isinstance(value, list):
        items = list(enumerate(value))[:3]
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


def mutate_json(file: Path, chance: random.Random) -> None:
    value = json.loads(file.read_text())
    for _ in range(chance.choice((1, 1, 2, 4))):
        *way, last = chance.choice(places(value))
        inner = value
        try:
            for key in way:
                inner = inner[key]
            if chance.random() < 0.3 and isinstance(inner, dict):
                inner.pop(last, None)
            else:
                inner[last] = chance.choice(ODD)
        except (IndexError, KeyError, TypeError):
            # What was exchanged before it is no longer there.
            continue
    file.write_text(json.dumps(value))


def mutate_template(file: Path, chance: random.Random) -> None:
    values = json.loads(file.read_text())
    if chance.random() < 0.5:
        text = tiny.CHATML
        for _ in range(chance.choice((1, 2, 3))):
            place = chance.randrange(len(text))
            text = text[:place] + chance.choice(PIECES) + text[place + chance.choice((0, 1, 8)) :]
    else:
        text = "".join(chance.choices(PIECES, k=chance.randrange(1, 12)))
    values["chat_template"] = text
    file.write_text(json.dumps(values))


def mutate_bytes(file: Path, chance: random.Random) -> None:
    """In the header of the weights, or anywhere, or cut off."""
    content = bytearray(file.read_bytes())
    for _ in range(chance.choice((1, 3, 10))):
        content[chance.randrange(min(chance.choice((8, 2000, 10**9)), len(content)))] = (
            chance.randrange(256)
        )
    if chance.random() < 0.2:
        del content[chance.randrange(len(content)) :]
    file.write_bytes(content)


def make(base: Path, folder: Path, seed: int) -> Path:
    """A copy of the base with something else in one of its files."""
    chance = random.Random(seed)
    shutil.copytree(base, folder)
    what = chance.choice(("json", "json", "template", "header", "bytes"))
    if what == "json":
        mutate_json(folder / chance.choice(FILES), chance)
    elif what == "template":
        mutate_template(folder / "tokenizer_config.json", chance)
    elif what == "header":
        mutate_bytes(folder / "model.safetensors", chance)
    else:
        mutate_bytes(folder / chance.choice(FILES), chance)
    return folder


@pytest.mark.slow
@settings(
    max_examples=max(1, EXAMPLES // BATCH),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(start=st.integers(0, 10**9))
def test_a_strangers_folder_is_a_model_or_one_line(
    tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory, start: int
) -> None:
    root = tmp_path_factory.mktemp("strangers")
    seeds = range(start, start + BATCH)
    folders = [make(tiny_folder, root / str(seed), seed) for seed in seeds]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, folders)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        # Nobody answers, should anything ask.
        stdin=subprocess.DEVNULL,
    )
    told = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, told
    ends = [line for line in done.stdout.splitlines() if not line.endswith("begins")]
    assert len(ends) == BATCH, told
    assert all(" is a model" in line or " is refused:" in line for line in ends), told
    shutil.rmtree(root)
