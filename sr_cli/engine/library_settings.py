"""Settings of Pillow, OpenCV and tifffile, of the whole process, as srx has them while it reads."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import cv2
from PIL import Image, TiffImagePlugin


class Shared:
    """A context for several threads at a time: the first of them enters it, the last leaves it."""

    def __init__(self, context: Callable[[], AbstractContextManager[None]]) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._users = 0
        self._entered = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._entered.enter_context(self._context())
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._entered.close()


@contextmanager
def _settings() -> Iterator[None]:
    tifffile, opencv = logging.getLogger("tifffile"), cv2.utils.logging
    pixels, libtiff = Image.MAX_IMAGE_PIXELS, TiffImagePlugin.READ_LIBTIFF
    levels = tifffile.level, opencv.getLogLevel()
    Image.MAX_IMAGE_PIXELS = None  # `max_pixels` is ours, checked for each file
    TiffImagePlugin.READ_LIBTIFF = True  # Pillow's own reader mistakes 16-bit samples in planes
    tifffile.setLevel(logging.CRITICAL)
    opencv.setLogLevel(opencv.LOG_LEVEL_SILENT)  # Pillow has read the file already
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS, TiffImagePlugin.READ_LIBTIFF = pixels, libtiff
        tifffile.setLevel(levels[0])
        opencv.setLogLevel(levels[1])


settings_for_reading = Shared(_settings)
"""The context in which every picture is read. While any thread is in it, all see its settings; then
they are what they were."""
