import errno
import fcntl
import json
import math
import os
import stat
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest

from blogtune.common.files import PARTIAL, atomic_folder, atomic_text, write_json


class Interrupted(BaseException):
    """As Ctrl-C would be."""


FAULTS = [pytest.param(OSError, id="error"), pytest.param(Interrupted, id="interrupt")]


def tree(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_a_text_replaces_the_old_one_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    for content in ("old\n", "nëw\n"):
        with atomic_text(path) as file:
            file.write(content)
    assert path.read_bytes() == "nëw\n".encode()
    assert tree(tmp_path) == {"new/file.txt": "nëw\n"}


def test_a_text_is_on_the_disk_before_it_takes_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)

        def noted(*given: object, name: str = name, call: Callable[..., None] = call) -> None:
            done.append(name)
            call(*given)

        monkeypatch.setattr(os, name, noted)
    with atomic_text(tmp_path / "file.txt"):
        pass
    assert done == ["fsync", "replace", "fsync"]


def test_a_folder_s_files_are_on_the_disk_before_it_takes_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, synced = os.fsync, set[int]()

    def noted(handle: int) -> None:
        # Until the folder has its place nothing stands there.
        assert (tmp_path / "folder").exists() == (len(synced) == 4)
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "inner").mkdir()
        for name in ("a", "inner/b"):
            (folder / name).write_text(name)
    here = tmp_path / "folder"
    assert synced == {path.stat().st_ino for path in (*here.rglob("*"), here, tmp_path)}


@pytest.mark.parametrize("knows_it", [True, False], ids=["a disk", "a network drive"])
def test_on_macos_the_drive_s_own_memory_is_flushed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, knows_it: bool
) -> None:
    done: list[str] = []

    def full(_: int, command: int) -> int:
        assert command == 51
        if not knows_it:
            raise OSError(errno.ENOTSUP, "not supported")
        done.append("full")
        return 0

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", full)
    monkeypatch.setattr(os, "fsync", lambda _: done.append("fsync"))
    with atomic_text(tmp_path / "file.txt"):
        pass
    assert done == ["full" if knows_it else "fsync"] * 2


def test_what_a_kill_leaves_has_the_name_that_git_and_dvc_pass_over(tmp_path: Path) -> None:
    with atomic_text(tmp_path / "file.txt"), atomic_folder(tmp_path / "folder"):
        names = [path.name for path in tmp_path.iterdir()]
    root = Path(__file__).parents[2]
    for file in (".gitignore", ".dvcignore"):
        (pattern,) = (line for line in (root / file).read_text().splitlines() if PARTIAL in line)
        assert all(fnmatch(name, pattern) for name in names)
    assert len(names) == 2


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_text_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, fault: type[BaseException]
) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write() -> None:
        with atomic_text(path) as file:
            file.write("half")
            file.flush()
            assert path.read_text() == "old"
            raise fault

    with pytest.raises(fault):
        write()
    assert tree(tmp_path) == {"file.txt": "old"}


def test_a_written_text_can_be_read_by_everyone(tmp_path: Path) -> None:
    with atomic_text(tmp_path / "file.txt"):
        pass
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == 0o644


def test_a_folder_takes_the_place_of_the_old_one_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder"
    for name in ("old", "new"):
        with atomic_folder(path) as folder:
            (folder / f"{name}.txt").write_text(name)
    assert tree(tmp_path) == {"new/folder/new.txt": "new"}
    assert list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_folder_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, fault: type[BaseException]
) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old.txt").write_text("old")

    def write() -> None:
        with atomic_folder(path) as folder:
            (folder / "half.txt").write_text("half")
            raise fault

    with pytest.raises(fault):
        write()
    assert tree(tmp_path) == {"folder/old.txt": "old"}
    assert list(tmp_path.iterdir()) == [path]


def test_json_keeps_the_order_of_keys_and_ends_with_a_line_break(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", {"b": 1, "a": "ü"})
    text = (tmp_path / "metrics.json").read_text()
    assert text == '{\n  "b": 1,\n  "a": "ü"\n}\n'
    assert json.loads(text) == {"b": 1, "a": "ü"}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_without_a_finite_number_is_not_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"loss": value})
    assert tree(tmp_path) == {}
