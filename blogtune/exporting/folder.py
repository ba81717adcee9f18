"""models/export/: the model with a Modelfile, for those who carry files to another machine."""

import json
import re
import shutil
from pathlib import Path

from blogtune.common.errors import UserError
from blogtune.common.files import atomic_folder, sha256
from blogtune.exporting.source import Source
from blogtune.exporting.weights import write_weights

GGUF = "model.gguf"
MAGIC = b"GGUF"


def write_folder(output: Path, source: Source, gguf: Path | None, weights: str) -> None:
    """Write the Modelfile with `gguf` as model.gguf, or with the source's files.

    Beside a GGUF stands what it was made of, `weights` in DVC's words. Files are copied: `ollama
    create` follows no links. Raises UserError for a file that is not the GGUF that its name
    promises.
    """
    with atomic_folder(output) as folder:
        if gguf is None:
            with source.files() as files:
                for file in files:
                    shutil.copyfile(file, folder / file.name)
        else:
            _copy_checked(gguf, folder / GGUF)
            write_weights(folder, weights)
        text = modelfile(source, "." if gguf is None else f"./{GGUF}")
        (folder / "Modelfile").write_text(text, encoding="utf-8")


def server_file(modelfile_of_server: str) -> Path:
    """Where the server keeps the registered model, as its own Modelfile says.

    Raises UserError where that file cannot be read here: the server is on another machine, or its
    folder belongs to someone else.
    """
    found = re.search(r"^FROM (/.*sha256-[0-9a-f]{64})$", modelfile_of_server, re.MULTILINE)
    try:
        if found:
            with Path(found[1]).open("rb") as file:
                if file.read(len(MAGIC)) == MAGIC:
                    return Path(found[1])
    except OSError:
        pass
    raise UserError(
        "gguf needs the server's own file, which cannot be read on this machine",
        where="export.folder",
        remedy="set export.folder: safetensors, which `ollama create` reads as well",
    )


def modelfile(source: Source, weights: str) -> str:
    """The Modelfile that registers the same model by `ollama create`."""
    template = source.template
    lines = [f"FROM {weights}", f"TEMPLATE {_quoted(template.text)}"]
    if template.system:
        lines.append(f"SYSTEM {_quoted(template.system)}")
    for name, value in source.parameters.items():
        for each in value if isinstance(value, list) else [value]:
            text = _quoted(each) if isinstance(each, str) else json.dumps(each)
            lines.append(f"PARAMETER {name} {text}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Between three quotes, as Ollama reads it: there is no escape inside them."""
    if '"""' in text or text.endswith('"'):
        raise UserError(
            f"a Modelfile cannot hold {text[:60]!r}, which has three quotes or ends with one",
            remedy="set export.folder: null and use the registered model",
        )
    return f'"""{text}"""'


def _copy_checked(gguf: Path, target: Path) -> None:
    shutil.copyfile(gguf, target)
    if gguf.name != f"sha256-{sha256(target)}":
        raise UserError(
            "its content does not match the digest in its name",
            where=gguf,
            remedy="run `make export` again",
        )
