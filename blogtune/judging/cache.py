"""Verdicts that were given once are kept: a stopped run, a dead server or another run loses none.

`.dvc/verdicts/verdicts.jsonl` in the main working folder, so that experiments in temporary copies
share it:

    {"key": "3f0a...", "judge": "9c1d...", "model": "ollama:llama3.2", "method": "likert logprobs",
     "similarity": 0.7134}

`key` is a hash of everything that made the verdict, `judge` of all but item and method. Lines are
only ever added, each by one write of the whole line under a lock. A line that a kill cut off is
passed over, and the next one starts afresh. What has no score is not kept, so it is asked again.
"""

import errno
import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from blogtune.common.files import atomic_text
from blogtune.common.records import Record, Score
from blogtune.judging.protocol import Item, Judge, LanguageJudge, Verdict


class Entry(Record):
    """One line of the cache."""

    key: str
    judge: str
    model: str
    method: str
    similarity: Score


class Group(NamedTuple):
    """Whose verdicts, and how they came about."""

    model: str
    method: str


class VerdictCache:
    """The verdicts in one folder, which several processes may use at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "verdicts.jsonl"

    def entries(self) -> Iterator[Entry]:
        """All that is readable, oldest first."""
        if not self.file.exists():
            return
        with self.file.open("rb") as lines:
            for line in lines:
                try:
                    yield Entry.model_validate_json(line)
                except ValidationError:
                    continue

    def add(self, entry: Entry) -> None:
        """Append one line, whole."""
        with self._locked():
            handle = os.open(self.file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                line = _missing_line_end(handle) + entry.model_dump_json().encode() + b"\n"
                written = os.write(handle, line)
            finally:
                os.close(handle)
        if written < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.file))

    def prune(self, keep: Callable[[Entry], bool]) -> int:
        """Drop the entries that `keep` rejects, and unreadable lines; return how many entries."""
        with self._locked():
            entries = list(self.entries())
            kept = [entry for entry in entries if keep(entry)]
            with atomic_text(self.file) as file:
                file.writelines(entry.model_dump_json() + "\n" for entry in kept)
        return len(entries) - len(kept)

    def bytes(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    def groups(self) -> Counter[Group]:
        """How many entries each model and method has."""
        return Counter(Group(entry.model, entry.method) for entry in self.entries())

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Hold the lock, a file of its own: pruning puts another file in the place of the first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


class CachedJudge:
    """Asks a judge only for what the cache lacks, and for identical items once."""

    def __init__(self, judge: LanguageJudge, cache: VerdictCache) -> None:
        self.inner = judge
        self.cache = cache

    @property
    def method(self) -> str:
        return self.inner.method

    def judge(self, items: Sequence[Item]) -> Iterator[Verdict]:
        keys = [self._key(item) for item in items]
        wanted = set(keys)
        entries = (entry for entry in self.cache.entries() if entry.key in wanted)
        known = {entry.key: Verdict(entry.similarity) for entry in entries}
        missing = {k: item for k, item in zip(keys, items, strict=True) if k not in known}
        names = list(missing)
        # Closed, the judge lets its requests go: Ctrl-C waits for none of them.
        with closing(self.inner.ask(list(missing.values()))) as asked:
            for key in keys:
                while key not in known:
                    index, verdict = next(asked)
                    known[names[index]] = verdict
                    self._keep(names[index], verdict)
                yield known[key]

    def _key(self, item: Item) -> str:
        texts = {name: text for name, text in vars(item).items() if name != "context"}
        if item.context:
            texts["context"] = [turn.model_dump() for turn in item.context]
        return digest({**self.inner.identity, "method": self.method, "item": texts})

    def _keep(self, key: str, verdict: Verdict) -> None:
        if verdict.similarity is not None:
            identity = self.inner.identity
            judge, model = digest(identity), str(identity["model"])
            self.cache.add(
                Entry(
                    key=key,
                    judge=judge,
                    model=model,
                    method=self.method,
                    similarity=verdict.similarity,
                )
            )


def open_cache() -> VerdictCache:
    """The cache of the main working folder, which DVC names to what it runs in a copy."""
    return VerdictCache(Path(os.environ.get("DVC_ROOT") or ".") / ".dvc" / "verdicts")


def uncached(judge: Judge) -> Judge:
    """The judge without its cache, to be asked for the same item again."""
    return judge.inner if isinstance(judge, CachedJudge) else judge


def digest(values: Mapping[str, object]) -> str:
    """The sha256 of the values as JSON with sorted keys."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _missing_line_end(handle: int) -> bytes:
    """A line end where a kill left the last line without one."""
    length = os.fstat(handle).st_size
    return b"" if length == 0 or os.pread(handle, 1, length - 1) == b"\n" else b"\n"
