"""What the environment holds is named in one line where the hub is needed, else it is ignored."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fetching.hub import serve

ROOT = Path(__file__).parents[2]
LOOK = """
from blogtune.common.command import readable_errors
from blogtune.fetching.hub import look_up
with readable_errors():
    print(look_up("someone/tiny", "model").commit)
"""
ADDRESS = "error: HF_ENDPOINT: no address of a hub; unset it, or let it read https://host"
TOKEN = "error: the hub's token: holds what no token holds; `hf auth login` keeps a new one, or"


def run(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    values = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command,
        cwd=folder,
        env={**values, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        pytest.param({"HF_ENDPOINT": each}, ADDRESS, id=f"endpoint {each!r}")
        for each in ("", "nonsense", "ftp://x", "http://[::1", "http://host:port", "http://a:b/c@d")
    ]
    + [
        pytest.param({"HF_TOKEN": each}, TOKEN, id=f"token {each!r}")
        for each in ("hf_\xc4\xd6", "hf_a b", "hf_\x1b[2J")
    ]
    + [
        pytest.param({name: proxy}, f"error: {name}: names", id=f"{name} {proxy}")
        for name in ("ALL_PROXY", "https_proxy")
        for proxy in ("nonsense://x", "http//x", "http://[::1")
    ],
)
def test_what_is_odd_is_one_line_that_names_it(
    tmp_path: Path, environment: dict[str, str], told: str
) -> None:
    done = run(LOOK, tmp_path, **{"HF_ENDPOINT": "http://127.0.0.1:9", **environment})
    assert done.returncode == 1
    assert done.stderr.startswith(told)
    assert done.stderr.count("\n") == 1


def test_a_socks_proxy_is_named_with_what_it_needs(tmp_path: Path) -> None:
    done = run(LOOK, tmp_path, ALL_PROXY="socks5://me:secret@127.0.0.1:9")
    assert "Traceback" not in done.stderr
    assert "ALL_PROXY" in done.stderr
    assert "secret" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_password_in_the_address_is_not_told(tmp_path: Path) -> None:
    done = run(LOOK, tmp_path, HF_ENDPOINT="http://me:secret@127.0.0.1:9")
    assert "no connection to http://***@127.0.0.1:9" in done.stderr
    assert "secret" not in done.stderr


def test_a_hub_on_this_machine_is_reached_past_a_proxy(tmp_path: Path, tiny_folder: Path) -> None:
    folder = tmp_path / "remote"
    shutil.copytree(tiny_folder, folder)
    with serve("someone/tiny", folder) as hub:
        proxies = dict.fromkeys(("HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
        done = run(LOOK, tmp_path, HF_ENDPOINT=hub.address, **proxies)
    assert (done.stdout.strip(), done.stderr) == (hub.commit, "")


def test_a_hub_elsewhere_out_of_reach_names_the_proxy(tmp_path: Path) -> None:
    proxy = "http://me:secret@127.0.0.1:9"
    done = run(LOOK, tmp_path, HF_ENDPOINT="http://hub.example", HTTP_PROXY=proxy)
    assert "no connection to http://hub.example through the proxy in HTTP_PROXY" in done.stderr
    assert "secret" not in done.stderr
