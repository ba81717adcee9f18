"""Renews the lock files: exact versions with hashes, no index, for every platform at once.

Afterwards each platform is resolved on its own from wheels only, at the oldest Python and system
that README names: a lock that one of them cannot install is an error.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
UV = Path(sys.executable).parent / "uv"
COMPILE = (
    *("pip", "compile", "--quiet", "--universal", "--generate-hashes", "--upgrade"),
    *("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"),
    *("--python-version", "3.11"),
)
LOCKS = {
    "run": (),
    # Into the same environment as run.txt: what both hold must agree.
    "dev": ("-c", "requirements/run.txt"),
    "models": ("--no-deps",),
    # Into an environment of its own.
    "peers": (),
}
PLATFORMS = ("x86_64-manylinux_2_35", "aarch64-manylinux_2_35", "aarch64-apple-darwin")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# Pure Python, published as source only (a dependency of DVC's).
SOURCE_ONLY = ("antlr4-python3-runtime",)


def uv(*arguments: str) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    environment["MACOSX_DEPLOYMENT_TARGET"] = "14.0"
    subprocess.run([str(UV), *arguments], check=True, cwd=HERE.parent, env=environment)


def main() -> None:
    for name, extra in LOCKS.items():
        uv(*COMPILE, *extra, f"requirements/{name}.in", "-o", f"requirements/{name}.txt")
    only_source = [word for name in SOURCE_ONLY for word in ("--no-binary", name)]
    for platform in PLATFORMS:
        for python in PYTHONS:
            check = (
                "pip",
                "compile",
                "--quiet",
                "--no-deps",
                "--only-binary",
                ":all:",
                *only_source,
            )
            where = ("--python-platform", platform, "--python-version", python)
            uv(*check, *only_source, *where, "requirements/run.txt", "-o", os.devnull)
            print(f"{platform}, Python {python}: every wheel is there")


if __name__ == "__main__":
    main()
