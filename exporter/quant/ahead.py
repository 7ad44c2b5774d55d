"""Results in order, the next ones made meanwhile: NumPy lets go of the GIL as it computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Results that wait at a time: as much memory as so many blocks of rows, whatever the machine.
_AHEAD = min(4, os.cpu_count() or 1)


def made_ahead(make: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result]:
    """Yield ``make(item)`` for each of ``items``, in their order.

    ``items`` is advanced by the caller's thread.  What ``make`` raises is raised at its
    result's turn; results that nobody came for are dropped.
    """
    with ThreadPoolExecutor(_AHEAD, thread_name_prefix="tabwright") as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
