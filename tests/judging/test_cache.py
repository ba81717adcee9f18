"""The verdict cache: nothing given is lost, nothing is asked twice, whoever is killed when."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blogtune.common.records import Message
from blogtune.judging.cache import CachedJudge, Entry, VerdictCache, digest, open_cache, uncached
from blogtune.judging.judge import open_judge
from blogtune.judging.ollama import OllamaJudge, ollama_identity
from blogtune.judging.protocol import Item, LanguageJudge, Verdict, in_order
from tests.judging.server import Answer, Server, hashed, judge_params, serve

ROOT = Path(__file__).parents[2]
SAID = (Message(role="user", content="How?"), Message(role="assistant", content="So."))


class Counting(LanguageJudge):
    """Scores by the answer's length, last item first, and remembers what it was asked."""

    method = "length"
    identity: Mapping[str, object] = {}

    def __init__(self, **identity: object) -> None:
        self.identity = {"model": "toy", **identity}
        self.asked: list[Item] = []

    def judge(self, items: Sequence[Item]) -> Iterator[Verdict]:
        return in_order(self.ask(items))

    def ask(self, items: Sequence[Item]) -> Generator[tuple[int, Verdict]]:
        for index in reversed(range(len(items))):
            self.asked.append(items[index])
            yield index, self.verdict(items[index])

    def verdict(self, item: Item) -> Verdict:
        if "mute" in item.answer:
            return Verdict(None, reason="no readable score")
        return Verdict(1 / (1 + len(item.answer)))


@pytest.fixture
def cache(tmp_path: Path) -> VerdictCache:
    return VerdictCache(tmp_path / ".dvc/verdicts")


def items(*answers: str) -> list[Item]:
    return [Item("Why?", "Because.", answer) for answer in answers]


def entry(key: str, judge: str = "j") -> Entry:
    return Entry(key=key, judge=judge, model="toy", method="length", similarity=0.1 + 0.2)


def keys(cache: VerdictCache) -> list[str]:
    return [each.key for each in cache.entries()]


def test_a_verdict_is_asked_for_once(cache: VerdictCache) -> None:
    given = items("a", "bb", "ccc")
    judge = Counting()
    first = list(CachedJudge(judge, cache).judge(given))
    assert first == [judge.verdict(item) for item in given]
    again = Counting()
    assert list(CachedJudge(again, cache).judge([*given, *items("dddd")])) == [
        *first,
        Verdict(1 / 5),
    ]
    assert again.asked == items("dddd")


class Held(Counting):
    """Keeps what it gave, so that nothing but `close` ends it."""

    def ask(self, items: Sequence[Item]) -> Generator[tuple[int, Verdict]]:
        self.given = super().ask(items)
        return self.given


def test_a_judge_that_is_left_early_is_closed(cache: VerdictCache) -> None:
    judge = Held()
    verdicts = CachedJudge(judge, cache).judge(items("a", "bb", "ccc"))
    next(verdicts)
    del verdicts
    assert judge.given.gi_frame is None


def test_two_identical_items_of_a_run_are_asked_once(cache: VerdictCache) -> None:
    judge = Counting()
    found = list(CachedJudge(judge, cache).judge(items("a", "bb", "a", "mute", "mute")))
    assert [each.similarity for each in found] == [1 / 2, 1 / 3, 1 / 2, None, None]
    assert Counter(item.answer for item in judge.asked) == {"a": 1, "bb": 1, "mute": 1}


def test_what_has_no_score_is_not_kept_and_asked_again(cache: VerdictCache) -> None:
    for _ in range(2):
        judge = Counting()
        (found,) = CachedJudge(judge, cache).judge(items("mute"))
        assert found == Verdict(None, reason="no readable score")
        assert len(judge.asked) == 1
    assert keys(cache) == []


@pytest.mark.parametrize(
    "other",
    [
        pytest.param((Item("Why not?", "Because.", "a"), Counting()), id="question"),
        pytest.param((Item("Why?", "Because.", "a", SAID), Counting()), id="context"),
        pytest.param((Item("Why?", "Therefore.", "a"), Counting()), id="reference"),
        pytest.param((Item("Why?", "Because.", "b"), Counting()), id="answer"),
        pytest.param((items("a")[0], Counting(prompt="other")), id="prompt"),
        pytest.param((items("a")[0], Counting(model="other")), id="model"),
    ],
)
def test_whatever_makes_a_verdict_makes_it_another(
    cache: VerdictCache, other: tuple[Item, Counting]
) -> None:
    list(CachedJudge(Counting(), cache).judge(items("a")))
    item, judge = other
    list(CachedJudge(judge, cache).judge([item]))
    assert judge.asked == [item]


def test_another_method_is_another_verdict(cache: VerdictCache) -> None:
    list(CachedJudge(Counting(), cache).judge(items("a")))
    judge = Counting()
    judge.method = "other"  # type: ignore[misc]
    list(CachedJudge(judge, cache).judge(items("a")))
    assert judge.asked == items("a")


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"scale": "unit"}, False),
        ({"model": {"source": "ollama:toy", "revision": "cd" * 32}}, False),
        ({"model": {"source": "ollama:other", "revision": "ab" * 32}}, False),
        # How it is asked does not make a verdict.
        ({"workers": 1, "retries": 0, "timeout_seconds": 1.0, "host": "http://a"}, True),
    ],
)
def test_an_ollama_judge_is_its_model_and_its_prompt(changes: dict[str, Any], same: bool) -> None:
    one, other = judge_params(), judge_params(**changes)
    assert (digest(ollama_identity(one)) == digest(ollama_identity(other))) == same


@given(st.floats(0, 1))
def test_a_score_comes_back_to_the_last_bit(similarity: float) -> None:
    kept = Entry(key="k", judge="j", model="m", method="l", similarity=similarity)
    assert Entry.model_validate_json(kept.model_dump_json()).similarity == similarity


def test_without_the_cache_a_judge_is_asked_again(cache: VerdictCache) -> None:
    judge = Counting()
    cached = CachedJudge(judge, cache)
    list(cached.judge(items("a")))
    assert uncached(cached) is judge
    assert uncached(judge) is judge
    assert list(uncached(cached).judge(items("a"))) == [Verdict(0.5)]
    assert len(judge.asked) == 2


TORN = [b"", b"{", b'{"key": "b", "judge": "j"', b'{"key": "b", "si\xc3', b"\x00" * 100]


@pytest.mark.parametrize("torn", TORN)
def test_a_line_cut_off_by_a_kill_is_passed_over(cache: VerdictCache, torn: bytes) -> None:
    cache.add(entry("a"))
    with cache.file.open("ab") as file:
        file.write(torn)
    assert keys(cache) == ["a"]
    cache.add(entry("b"))
    cache.add(entry("c"))
    assert keys(cache) == ["a", "b", "c"]


def test_every_cut_of_a_line_leaves_all_others(cache: VerdictCache) -> None:
    cache.add(entry("a"))
    cache.add(entry("b"))
    whole = cache.file.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        cache.file.write_bytes(whole[:length])
        cache.add(entry("c"))
        # Without its line end the last line is whole.
        expected = ["a", "b", "c"] if length == len(whole) - 1 else ["a", "c"]
        assert keys(cache) == expected


@pytest.mark.parametrize("similarity", ["2", "null", '"x"', "NaN"])
def test_a_line_with_a_score_that_is_none_is_passed_over(
    cache: VerdictCache, similarity: str
) -> None:
    cache.add(entry("a"))
    line = entry("b").model_dump_json().replace(str(0.1 + 0.2), similarity)
    cache.file.write_text(cache.file.read_text() + line + "\n")
    assert keys(cache) == ["a"]


def add_many(folder: Path, name: str, count: int) -> None:
    for number in range(count):
        VerdictCache(folder).add(entry(f"{name}{number}"))


def test_processes_that_write_and_prune_at_a_time_lose_nothing(cache: VerdictCache) -> None:
    # Not forked: a copy of a process that has used MLX may hang, and on macOS it does.
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=add_many, args=(cache.folder, name, 150)) for name in "abcd"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert cache.prune(lambda _: True) == 0
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert sorted(keys(cache)) == sorted(f"{name}{n}" for name in "abcd" for n in range(150))


def test_pruning_waits_for_the_lock(cache: VerdictCache) -> None:
    cache.add(entry("a"))
    pruning = threading.Thread(target=cache.prune, args=[lambda _: True], daemon=True)
    with cache._locked():
        pruning.start()
        pruning.join(0.3)
        assert pruning.is_alive()
    pruning.join(20)
    assert not pruning.is_alive()


def test_a_full_disk_is_told(cache: VerdictCache, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, line: write(handle, line[:5]))
    with pytest.raises(OSError, match="No space left"):
        cache.add(entry("a"))


def test_pruning_keeps_what_is_wanted_and_drops_torn_lines(cache: VerdictCache) -> None:
    for key, judge in (("a", "old"), ("b", "new"), ("c", "old")):
        cache.add(entry(key, judge))
    with cache.file.open("ab") as file:
        file.write(b'{"key"')
    assert cache.prune(lambda each: each.judge == "new") == 2
    assert cache.file.read_text() == entry("b", "new").model_dump_json() + "\n"


def test_experiments_in_a_copy_share_the_main_folders_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert open_cache().folder == tmp_path / ".dvc/verdicts"
    monkeypatch.delenv("DVC_ROOT")
    monkeypatch.chdir(tmp_path)
    assert open_cache().folder.resolve() == (tmp_path / ".dvc/verdicts").resolve()


def test_a_judge_on_a_server_is_opened_with_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with serve() as server:
        for _ in range(2):
            judge = open_judge(judge_params(server.address), tmp_path)
            assert isinstance(uncached(judge), OllamaJudge)
            found = list(judge.judge(items("a", "b")))
            assert all(each.similarity is not None for each in found)
    assert len(server.prompts) == 2


JUDGING = """
import sys
from pathlib import Path
from blogtune.judging.judge import open_judge
from blogtune.judging.protocol import Item
from tests.judging.server import judge_params
judge = open_judge(judge_params(sys.argv[1]), Path("."))
print("open", flush=True)
for verdict in judge.judge([Item(f"Question {n}?", "r", "a") for n in range(int(sys.argv[2]))]):
    print(verdict.similarity, flush=True)
"""


def start_judging(server: Server, root: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", JUDGING, server.address, str(count)]
    environment = {**os.environ, "DVC_ROOT": str(root)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def test_over_20_kills_no_verdict_is_lost_and_none_asked_twice_but_those_in_flight(
    tmp_path: Path,
) -> None:
    """A verdict counts as given as soon as the process has said so, or kept it."""
    count, workers = 400, 4
    moments = random.Random(7)

    def rule(prompt: str) -> Answer:
        return replace(hashed(prompt), seconds=0.01)

    cache = VerdictCache(tmp_path / ".dvc/verdicts")
    kills = 0
    with serve(rule) as server:
        while kills < 20:
            before = len(keys(cache))
            process = start_judging(server, tmp_path, count)
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            # Counted in new verdicts, because a busy machine takes its time to the first.
            seen = [process.stdout.readline() for _ in range(before + moments.randint(0, 12))]
            time.sleep(moments.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
            told, _ = process.communicate()
            assert process.returncode == -signal.SIGKILL, "it was done too early"
            kills += 1
            # The last line may be cut off.
            assert len(keys(cache)) >= max(before, len(seen) + told.count("\n"))
        assert 20 < len(keys(cache)) < count
        process = start_judging(server, tmp_path, count)
        told, _ = process.communicate(timeout=300)
        asked = Counter(server.prompts)
    kept = keys(cache)
    assert len(kept) == len(set(kept)) == count
    assert len(asked) == count
    assert len(told.splitlines()) == count + 1
    assert "None" not in told
    assert sum(asked.values()) - count <= kills * workers


def test_the_same_scores_come_from_server_and_cache(tmp_path: Path) -> None:
    with serve() as server:
        told = []
        for _ in range(2):
            process = start_judging(server, tmp_path, 20)
            told.append(process.communicate(timeout=120)[0])
    assert told[0] == told[1]
    assert len(server.prompts) == 20
    lines = (tmp_path / ".dvc/verdicts/verdicts.jsonl").read_text().splitlines()
    assert {json.loads(line)["method"] for line in lines} == {"likert logprobs"}
