"""A run between remote folders, of which none is needed here."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from sr_cli.engine import remote
from sr_cli.engine.events import Event, Failed, Finished, Job
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import InputError


@pytest.mark.usefixtures("tiny")
def test_events_are_told_one_at_a_time(tmp_path: Path) -> None:
    """A picture that cannot be fetched, too, while another is being told of."""
    jobs = [Job(tmp_path / f"{n}.png", tmp_path / f"{n}.tiff") for n in range(4)]
    for job in jobs:
        Image.new("RGB", (4, 4)).save(job.input)
    telling, lock, together = threading.Event(), threading.Lock(), list[bool]()

    def fetch(job: Job) -> Job:
        if job is jobs[-1]:
            assert telling.wait(60)
            raise InputError("It is gone.")
        return job

    def notify(event: Event) -> None:
        free = lock.acquire(blocking=False)
        together.append(not free)
        if isinstance(event, Finished):
            telling.set()
            time.sleep(0.1)
        if free:
            lock.release()
        outcomes.append(type(event))

    outcomes: list[type] = []
    options = UpscaleOptions(scale=2, steps=1, preprocess="none")
    known: Any = SimpleNamespace(
        fetch=fetch, key=str, tag=str, drop=str, name=lambda path: path, sources={}
    )
    ledger: Any = SimpleNamespace(
        start=str, publish=lambda *_, **__: None, failed=lambda *_: None, close=lambda: None
    )
    engine = Upscaler(options, device="cpu", dtype="float32")
    files = OutputOptions()
    remote.run(jobs, options, engine, notify, files=files, mirror=known, ledger=ledger)
    assert not any(together)
    assert outcomes.count(Finished) == 3
    assert outcomes.count(Failed) == 1
