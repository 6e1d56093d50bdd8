"""Long work in a thread of its own ends soon after nobody wants it: between its parts it asks."""

from contextvars import ContextVar
from threading import Event

_told: ContextVar[Event | None] = ContextVar("told", default=None)


class StoppedError(Exception):
    """What this thread makes is not wanted any longer; who had asked for it knows."""


def listen(told: Event) -> None:
    """From now on `go_on` ends the work of this thread when that is set."""
    _told.set(told)


def go_on() -> None:
    """Raise StoppedError where this thread is told to stop; elsewhere nothing happens."""
    told = _told.get()
    if told is not None and told.is_set():
        raise StoppedError
