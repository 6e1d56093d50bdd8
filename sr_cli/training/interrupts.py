"""Ctrl-C and SIGTERM, told when it suits."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM wait for the end of the block; the list gets those that came.

    An exception of the block's own goes before them. Only the main thread is ever interrupted.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    handlers = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        for kind in handlers:
            signal.signal(kind, lambda number, _: came.append(number))
        yield came
    finally:
        for kind, handler in handlers.items():
            signal.signal(kind, handler)
    for number in came:
        signal.raise_signal(number)
