import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from blogtune.common.errors import UserError
from blogtune.cpu.cores import usable_cores
from blogtune.runtime.device import device
from blogtune.runtime.params import RuntimeParams
from blogtune.runtime.workers import how_many, worker_group

PROGRAM = """
import os, sys, time
from pathlib import Path
import mlx.core as mx
from blogtune.common.errors import UserError
from blogtune.runtime.params import RuntimeParams
from blogtune.runtime.collectives import all_sum
from blogtune.runtime.workers import worker_group

processes = int(sys.argv[1]) if sys.argv[1].isdigit() else sys.argv[1]
params = RuntimeParams(dtype="auto", processes=processes)
try:
    with worker_group(params, Path("model"), ["program", *sys.argv[1:]]) as group:
        print(group.size(), all_sum(mx.array([1, group.rank()]), group).tolist(), flush=True)
        {then}
except UserError as error:
    sys.exit(f"error: {{error}}")
"""
FAILS = """
        if group.rank() == 1:
            sys.exit("no memory for this one")
        while True:
            mx.eval(all_sum(mx.array(1), group))
"""


def start(folder: Path, processes: int | str, then: str = "pass") -> "subprocess.Popen[str]":
    (folder / "program.py").write_text(PROGRAM.format(then=then))
    paths = os.pathsep.join([str(folder), str(Path.cwd())])
    return subprocess.Popen(
        [sys.executable, "-m", "program", str(processes)],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("processes", "line"), [(1, "1 [1, 0]"), (2, "2 [2, 1]"), (3, "3 [3, 3]")], ids=str
)
def test_what_each_process_has_is_summed_and_one_speaks(
    tmp_path: Path, processes: int, line: str
) -> None:
    out, err = start(tmp_path, processes).communicate(timeout=60)
    assert out == line + "\n"
    assert err == ""


SUMS = """
        rank = group.rank()
        several = [mx.array([[rank, 2.0]]), (mx.array(3),)]
        tree = {"b": several, "a": mx.full((2,), rank, mx.bfloat16)}
        summed = all_sum(tree, group)
        mx.eval(summed)
        if rank == 0:
            print(summed["b"][0].tolist(), summed["b"][1][0].item(), summed["b"][1][0].dtype)
            print(summed["a"].tolist(), summed["a"].dtype, list(summed), flush=True)
"""


def test_sums_of_a_tree_keep_its_shapes_and_types(tmp_path: Path) -> None:
    out, err = start(tmp_path, 3, SUMS).communicate(timeout=60)
    assert out.splitlines()[1:] == [
        "[[3.0, 6.0]] 9 mlx.core.int32",
        "[3.0, 3.0] mlx.core.bfloat16 ['b', 'a']",
    ]
    assert err == ""


def test_one_that_fails_ends_all_and_its_last_line_is_told(tmp_path: Path) -> None:
    program = start(tmp_path, 2, FAILS)
    _, err = program.communicate(timeout=60)
    assert program.returncode == 1
    assert "error: a process of this stage ended: no memory for this one" in err


@pytest.mark.parametrize("processes", [2, 3])
def test_one_that_ends_before_it_has_come_is_not_waited_for(processes: int) -> None:
    params = RuntimeParams(dtype="auto", processes=processes)
    with (
        pytest.raises(UserError, match=r"a process of this stage ended: .*No module named nothing"),
        worker_group(params, Path("model"), ["nothing"]),
    ):
        pass


def test_threads_that_are_asked_for_are_those_of_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    file = f"Path({str(tmp_path)!r}, str(group.rank()))"
    written = f'{file}.write_text(os.environ["OPENBLAS_NUM_THREADS"])'
    start(tmp_path, 2, written).communicate(timeout=60)
    assert [(tmp_path / rank).read_text() for rank in ("0", "1")] == ["3", "3"]


def test_when_the_first_is_killed_the_others_end(tmp_path: Path) -> None:
    program = start(tmp_path, 3, "time.sleep(600)")
    assert program.stdout is not None
    program.stdout.readline()
    others = psutil.Process(program.pid).children()
    assert len(others) == 2
    os.kill(program.pid, signal.SIGKILL)
    program.communicate()
    gone, alive = psutil.wait_procs(others, timeout=10)
    assert (len(gone), alive) == (2, [])


def test_a_host_file_starts_a_process_on_each_host(tmp_path: Path) -> None:
    """Both are here; an address of its own is what another machine would have beside it."""
    program = start(tmp_path, host_file(tmp_path, "127.0.0.1", "127.0.0.1"))
    out, err = program.communicate(timeout=60)
    assert sorted(out.split("\n")) == ["", "2 [2, 1]", "2 [2, 1]"]
    # The stage's command line leaves the sign; nothing here does, so it has not ended well.
    assert (program.returncode, err) == (1, "")


@pytest.mark.parametrize("other", [None, "what.jsonl", "params.yaml", "model/config.json"])
def test_hosts_that_have_other_files_are_refused(tmp_path: Path, other: str | None) -> None:
    """Each in its own folder, as without a shared one; a host file's launcher sets the same."""
    ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [[f"127.0.0.1:{port.getsockname()[1]}"] for port in ports]
    (tmp_path / "ring.json").write_text(json.dumps(addresses))
    code = (
        PROGRAM.format(then="pass")
        .replace('"program", *', "*")
        .replace("sys.argv[1:]])", 'sys.argv[1:]], [Path("what.jsonl")])')
    )
    running = list[subprocess.Popen[str]]()
    for port in ports:
        port.close()
    for rank in range(2):
        folder = tmp_path / f"host{rank}"
        for name in ("what.jsonl", "params.yaml", "model/config.json", "blogtune/a.py"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{rank}" if name == other else "the same")
        environment = {"MLX_RANK": f"{rank}", "MLX_HOSTFILE": str(tmp_path / "ring.json")}
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", code, "auto"],
                env={**os.environ, **environment, "PYTHONPATH": str(Path.cwd())},
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    said = [process.communicate(timeout=60)[1] for process in running]
    if other is None:
        assert said == ["", ""]
        return
    named = "model" if other.startswith("model") else other
    for each in said:
        assert each.startswith(f"error: {named}: on host 1 of runtime.processes it is not what it")


def test_when_a_host_file_s_launcher_is_killed_its_processes_end(tmp_path: Path) -> None:
    sums = "while True: mx.eval(all_sum(mx.array(1), group))"
    program = start(tmp_path, host_file(tmp_path, "127.0.0.1", "127.0.0.1"), sums)
    assert program.stdout is not None
    program.stdout.readline()
    (launcher,) = psutil.Process(program.pid).children()
    processes = launcher.children()
    assert len(processes) == 2
    launcher.kill()
    program.communicate(timeout=10)
    assert program.returncode == 1
    gone, alive = psutil.wait_procs(processes, timeout=10)
    assert (len(gone), alive) == (2, [])


@pytest.mark.parametrize(
    ("hosts", "message"),
    [
        ((), "no host file as `mlx.distributed_config` writes it"),
        (
            ("elsewhere", "127.0.0.1"),
            "the first host must be this machine, with ssh: 127.0.0.1",
        ),
        (None, "runtime.processes: hosts.json: no such host file"),
    ],
    ids=["none", "another machine first", "no such file"],
)
def test_a_host_file_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: tuple[str, ...] | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if hosts is not None:
        host_file(tmp_path, *hosts)
    params = RuntimeParams(dtype="auto", processes="hosts.json")
    with (
        pytest.raises(UserError, match=re.escape(message)),
        worker_group(params, tmp_path, ["program"]),
    ):
        pass


def host_file(folder: Path, *names: str) -> str:
    hosts = [{"ssh": name, "ips": ["127.0.0.1"]} for name in names]
    (folder / "hosts.json").write_text(json.dumps(hosts))
    return str(folder / "hosts.json")


def test_auto_is_one_process_a_core_as_far_as_the_memory_goes() -> None:
    auto = RuntimeParams(dtype="auto", processes="auto")
    expected = min(4, usable_cores()) if device().is_cpu else 1
    assert how_many(auto, 0) == expected
    # A model of which not one fits four times.
    stored = psutil.virtual_memory().total
    assert how_many(auto, stored) == 1
    assert how_many(RuntimeParams(dtype="auto", processes=3), stored) == 3
