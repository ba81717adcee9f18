"""Several requests in flight, their results as they come, and nobody waited for at the end."""

from collections.abc import Callable, Generator, Sequence
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(
    function: Callable[[T], R], tasks: Sequence[T], workers: int
) -> Generator[tuple[T, R]]:
    """Yield (task, result) in the order in which they are done, `workers` of them at a time.

    Closed early (Ctrl-C), it starts no further task and waits for none: the threads are daemons,
    which a process that ends does not join. What a task raises is raised here.
    """
    waiting: SimpleQueue[T] = SimpleQueue()
    done: SimpleQueue[tuple[T, R | Exception]] = SimpleQueue()
    stopped = Event()
    for task in tasks:
        waiting.put(task)

    def work() -> None:
        while not stopped.is_set():
            try:
                task = waiting.get_nowait()
            except Empty:
                return
            try:
                done.put((task, function(task)))
            except Exception as error:  # noqa: BLE001
                stopped.set()
                done.put((task, error))

    for _ in range(min(workers, len(tasks))):
        Thread(target=work, daemon=True).start()
    try:
        for _ in tasks:
            task, result = done.get()
            if isinstance(result, Exception):
                raise result
            yield task, result
    finally:
        stopped.set()
