"""Stages that go on side by side: the same items, one ahead, and nothing that outlives its use."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.stream.ahead import ahead
from sr_cli.engine.stream.walk import WalkByRows
from sr_cli.engine.upscaler import Upscaler
from sr_cli.evaluation.suite.networks import MOMENT
from sr_cli.models import rows
from sr_cli.models.embedded import EmbeddedDenoiser
from sr_cli.models.winograd import Convolution
from sr_cli.stopping import StoppedError, go_on

PATIENCE_S = 60.0


def test_the_next_item_is_made_while_one_is_used_and_no_further() -> None:
    begun = [threading.Event() for _ in range(4)]

    def items() -> Iterator[int]:
        for number, event in enumerate(begun):
            event.set()
            yield number

    made = ahead(items())
    for number in range(4):
        assert next(made) == number
        if number + 1 < 4:
            assert begun[number + 1].wait(PATIENCE_S)
        assert not any(event.is_set() for event in begun[number + 2 :])
    assert not list(made)


def test_it_is_another_thread_that_computes_as_the_caller_does() -> None:
    before = torch.get_num_threads()

    def items() -> Iterator[tuple[int, int, bool]]:
        yield threading.get_ident(), torch.get_num_threads(), torch.is_inference_mode_enabled()

    torch.set_num_threads(before + 1)
    try:
        ((thread, threads, inference),) = ahead(items())
    finally:
        torch.set_num_threads(before)
    assert thread != threading.get_ident()
    assert (threads, inference) == (before + 1, True)


def test_what_is_raised_there_is_raised_here_after_what_was_made() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise MemoryError("no more")

    made = ahead(items())
    assert next(made) == 1
    with pytest.raises(MemoryError, match="no more"):
        next(made)


def test_what_is_raised_and_caught_holds_nothing() -> None:
    """Without the garbage collector: smaller parts are tried next, where memory is short."""
    before, held = threading.active_count(), weakref.WeakSet[torch.Tensor]()

    def items() -> Iterator[torch.Tensor]:
        tensor = torch.zeros(1)
        held.add(tensor)
        yield tensor
        raise MemoryError

    gc.disable()
    try:
        with pytest.raises(MemoryError):
            list(ahead(ahead(items())))
        assert not held
        assert threading.active_count() == before
    finally:
        gc.enable()


def test_where_the_rest_is_not_wanted_its_thread_is_gone_and_no_more_is_made() -> None:
    before, seen = threading.active_count(), []

    def items() -> Iterator[int]:
        for number in range(9):
            seen.append(number)
            yield number

    made = ahead(items())
    next(made)
    assert threading.active_count() == before + 1
    made.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert seen == [0, 1]


def test_who_makes_what_is_not_wanted_is_told_between_its_parts() -> None:
    begun, told = threading.Event(), []

    def items() -> Iterator[int]:
        yield 1
        begun.set()
        until = time.monotonic() + PATIENCE_S
        try:
            while time.monotonic() < until:
                go_on()
        except StoppedError:
            told.append(threading.get_ident())
            raise

    made = ahead(items())
    next(made)
    assert begun.wait(PATIENCE_S)
    made.close()  # type: ignore[attr-defined]
    assert len(told) == 1
    assert told[0] != threading.get_ident()
    go_on()  # this thread has not been told


@pytest.mark.usefixtures("tiny")
def test_networks_ask_at_every_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = Upscaler(UpscaleOptions(), device="cpu", dtype="float32").model.denoiser
    assert isinstance(denoiser, EmbeddedDenoiser)
    asked: list[int] = []
    monkeypatch.setattr(rows, "go_on", lambda: asked.append(len(asked)))
    x = torch.rand(1, 3, 64, 32)
    with torch.inference_mode():
        list(denoiser.by_rows(64, MOMENT)(x, x))
    layers = sum(isinstance(module, Convolution) for module in denoiser.net.modules())
    assert len(asked) >= layers > 4


@pytest.mark.parametrize(("most", "together"), [(16, False), (32, True)])
def test_the_fewest_rows_are_made_one_after_another(most: int, together: bool) -> None:
    walk: Any = SimpleNamespace(most=most, model=SimpleNamespace(multiple_of=16))
    here = threading.get_ident()
    made = list(WalkByRows._ahead(walk, (threading.get_ident() for _ in range(3))))
    assert len(made) == 3
    assert (here not in made) == together
