import threading
import time

import pytest

from blogtune.ollama.workers import in_parallel


def test_every_task_has_its_result() -> None:
    squares = dict(in_parallel(lambda n: n * n, range(50), 4))
    assert squares == {n: n * n for n in range(50)}


def test_results_come_as_they_are_done() -> None:
    first = threading.Event()

    def wait(task: str) -> str:
        if task == "first":
            assert first.wait(20)
        return task

    done = in_parallel(wait, ["first", "second"], 2)
    assert next(done) == ("second", "second")
    first.set()
    assert next(done) == ("first", "first")


def test_no_more_run_at_a_time_than_there_are_workers() -> None:
    running: list[int] = []
    most: list[int] = []

    def work(_: int) -> None:
        running.append(1)
        most.append(len(running))
        time.sleep(0.01)
        running.pop()

    assert len(list(in_parallel(work, range(20), 3))) == 20
    assert max(most) <= 3


def test_what_a_task_raises_is_raised_and_no_further_task_starts() -> None:
    started: list[int] = []

    def work(task: int) -> None:
        started.append(task)
        raise ValueError(task)

    with pytest.raises(ValueError, match="0"):
        list(in_parallel(work, range(100), 1))
    assert started == [0]


def test_closed_early_it_waits_for_none() -> None:
    blocked = threading.Event()

    def work(task: int) -> int:
        if task:
            blocked.wait(20)
        return task

    done = in_parallel(work, range(10), 2)
    assert next(done) == (0, 0)
    start = time.monotonic()
    done.close()
    assert time.monotonic() - start < 5
    blocked.set()


def test_closed_early_it_starts_no_further_task() -> None:
    started: list[int] = []
    go = threading.Semaphore(1)

    def work(task: int) -> int:
        go.acquire()
        started.append(task)
        return task

    done = in_parallel(work, range(10), 1)
    next(done)
    done.close()
    go.release(10)
    time.sleep(0.2)
    # One may have waited already.
    assert started in ([0], [0, 1])


def test_no_tasks_need_no_worker() -> None:
    assert list(in_parallel(str, [], 4)) == []
