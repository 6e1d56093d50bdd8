"""`--preset`: words for options of `srx upscale`, and nothing more than these options."""

from __future__ import annotations

from typing import Any, Final, Literal

Preset = Literal["fast", "default", "best", "faithful"]
PRESETS: Final[dict[Preset, dict[str, Any]]] = {
    "fast": {"steps": 1, "texture": None},
    "default": {"steps": None, "texture": None},
    "best": {"steps": 3, "texture": None},
    "faithful": {"steps": None, "texture": 0.0},
}
"""Values of options; None is the model's own. docs/results.md has what they are chosen by."""
