"""Rows of a picture that come from above to below, of which the lowest are kept."""

from __future__ import annotations

import torch
from torch import Tensor

from sr_cli.engine.tiling import Window


class Band:
    """Rows (1, C, h, W), known by their places in the whole picture."""

    def __init__(self, most: int = 0) -> None:
        """most: rows that are kept when the next ones come, as far as is known."""
        self._most = most
        self.top = self.bottom = 0
        """The first row that is kept, and the one after the last."""
        self._room = torch.empty(0)
        self._first = 0  # row of the room that holds the top

    def add(self, values: Tensor) -> None:
        """The next rows."""
        kept, more = self.bottom - self.top, values.shape[-2]
        if self._room.shape[-1] != values.shape[-1] or kept + more > self._room.shape[-2]:
            height = max(kept, self._most) + more
            roomy = values.new_empty(*values.shape[:2], height, values.shape[-1])
            if kept:
                roomy[..., :kept, :] = self._held
            self._room, self._first = roomy, 0
        elif self._first + kept + more > self._room.shape[-2]:
            self._to_the_top(kept)
        self.bottom += more
        self._held[..., kept:, :] = values

    def forget(self, before: int) -> None:
        """Rows above this one are not needed any longer."""
        self._first += max(0, before - self.top)
        self.top = max(self.top, before)

    def __getitem__(self, window: Window) -> Tensor:
        """A window of rows that are kept; it is lent until the next ones come."""
        rows, cols = window
        return self._held[..., rows.start - self.top : rows.stop - self.top, cols]

    @property
    def _held(self) -> Tensor:
        return self._room[..., self._first : self._first + self.bottom - self.top, :]

    def _to_the_top(self, kept: int) -> None:
        """Of the room; as many rows at a time as do not overlap where they go."""
        gone, self._first = self._first, 0
        for to in range(0, kept, gone):
            end = min(to + gone, kept)
            self._room[..., to:end, :] = self._room[..., to + gone : end + gone, :]
