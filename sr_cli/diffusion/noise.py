"""Gaussian noise by position: a pixel's noise depends on (seed, image, step, channel, row, column).

It is drawn in fixed blocks from a counter-based generator, so any two windows of the infinite
plane agree where they overlap, whatever the tiling, the batch, the device or the order of files.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
from numpy.typing import NDArray

Window = tuple[int, int]
_WORD = 2**64  # Philox counts in four 64-bit words


def digest(image: NDArray[np.generic]) -> bytes:
    """16 bytes that identify an array: its dtype, shape and values."""
    h = hashlib.blake2b(f"{image.dtype.str} {image.shape} ".encode(), digest_size=16)
    h.update(np.ascontiguousarray(image).data)
    return h.digest()


def noise_key(seed: int, image: bytes, step: int) -> int:
    """The 128-bit Philox key of one step's draw; `image` is its `digest`, step 0 the start."""
    head = f"{seed} {step} ".encode()
    return int.from_bytes(hashlib.blake2b(head + image, digest_size=16).digest(), "little")


def gaussian_noise(
    key: int, rows: Window, cols: Window, channels: int, block: int = 64, *, threads: int = 1
) -> NDArray[np.float32]:
    """z ~ N(0, 1) in the window [rows[0], rows[1]) × [cols[0], cols[1]) of an infinite plane.

    float32 of shape (channels, height, width), C-contiguous; positions may be negative. `key`,
    `channels` and `block` fix the plane: keep them the same for all windows that should agree.
    threads: draw blocks at a time, as NumPy lets others run while it draws.
    """
    (r0, r1), (c0, c1) = rows, cols
    out = np.empty((channels, r1 - r0, c1 - c0), np.float32)

    def fill(place: tuple[int, int]) -> None:
        i, j = place
        top, left = i * block, j * block
        y0, y1 = max(r0, top), min(r1, top + block)
        x0, x1 = max(c0, left), min(c1, left + block)
        out[:, y0 - r0 : y1 - r0, x0 - c0 : x1 - c0] = _block(key, i, j, channels, block)[
            :, y0 - top : y1 - top, x0 - left : x1 - left
        ]

    places = product(range(r0 // block, -(-r1 // block)), range(c0 // block, -(-c1 // block)))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, places))
    return out


def _block(key: int, i: int, j: int, channels: int, block: int) -> NDArray[np.float32]:
    # The low two words of the counter run within the block, the high two name it.
    counter = np.array([0, 0, i % _WORD, j % _WORD], np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
    return generator.standard_normal((channels, block, block), np.float32)
