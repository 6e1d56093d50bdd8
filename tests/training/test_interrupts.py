"""Ctrl-C waits for the end of a block, and no longer."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sr_cli.training.interrupts import held_back

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """As the command line has them."""
    before = [signal.signal(number, signal.default_int_handler) for number in NUMBERS]
    yield
    for number, handler in zip(NUMBERS, before, strict=True):
        signal.signal(number, handler)


def work(number: signal.Signals, done: list[int], error: Exception | None = None) -> None:
    """A block with a signal in its middle."""
    with held_back() as came:
        assert not came
        signal.raise_signal(number)
        if error:
            raise error
        done += came


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_told_after_the_block(number: signal.Signals) -> None:
    done: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        work(number, done)
    assert done == [number]
    with pytest.raises(KeyboardInterrupt):  # at once again
        signal.raise_signal(number)


def test_without_a_signal_nothing_is_told() -> None:
    with held_back() as came:
        pass
    assert not came


def test_what_the_block_raises_goes_first() -> None:
    """A state that is half changed is not taken for one that may be kept."""
    with pytest.raises(ValueError, match="half"):
        work(signal.SIGINT, [], ValueError("half of it"))
    assert [signal.getsignal(number) for number in NUMBERS] == [signal.default_int_handler] * 2


def test_other_threads_are_never_interrupted() -> None:
    def held() -> int:
        with held_back() as came:
            return len(came)

    with ThreadPoolExecutor() as pool:
        assert pool.submit(held).result() == 0
