"""A whole run over files as a stream of events: collected, locked, done, and told of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from sr_cli.engine.batch import Upscale, run
from sr_cli.engine.crew import usual_workers
from sr_cli.engine.events import Event, Outcome
from sr_cli.engine.jobs import collect_jobs, missing, pending
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.engine.output_folder import working


class _ClosedError(BaseException):
    """Nobody listens any more. No Exception, so that it counts as no picture's failure."""


def events(
    inputs: Sequence[Path],
    output: Path,
    options: UpscaleOptions,
    upscale: Upscale,
    *,
    files: OutputOptions,
    recursive: bool,
) -> Generator[Event, None, None]:
    """What `srx upscale` does with these arguments, as it happens.

    Every file ends with one Skipped, Failed or Finished; pictures that are enlarged tell Started
    and Stepped before. The work goes on in a thread while the events are used. Closing the iterator
    ends it after the network call in progress; the same call begins where it stopped.

    Raises what `collect_jobs`, `working` and `run` do.
    """
    planned = collect_jobs(inputs, output, options, files, recursive=recursive)
    yield from planned.failures
    results = [job.output for job in planned.jobs]
    with working(output, results, single=planned.single) as manifest:
        todo, settled = pending(planned.jobs, options, files, manifest)
        yield from settled
        manifest.settled(settled)
        if not todo:
            return
        manifest.start(len(todo))
        outcomes: list[Outcome] = []

        def work(notify: Callable[[Event], None]) -> None:
            crew = usual_workers()
            run(todo, options, upscale, notify, files=files, manifest=manifest, workers=crew)

        streamed = _streamed(work)
        for event in streamed:
            if isinstance(event, Outcome):
                outcomes.append(event)
            yield event
        for told, found in zip(outcomes, missing(outcomes), strict=True):
            if found is not told:
                yield found


def _streamed(work: Callable[[Callable[[Event], None]], None]) -> Generator[Event, None, None]:
    """What `work`, in a thread of its own, tells its listener."""
    told: SimpleQueue[Event | None] = SimpleQueue()
    closed = threading.Event()

    def tell(event: Event) -> None:
        told.put(event)
        if closed.is_set():
            raise _ClosedError

    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(work, tell)
        future.add_done_callback(lambda _: told.put(None))
        try:
            while (event := told.get()) is not None:
                yield event
        finally:
            closed.set()
        future.result()
