"""What the choices of a walk are called. Free of imports, so that a command line can offer them."""

from typing import Literal

Variant = Literal["paper", "corrected"]
"""Of the solver of order 3: Eq. 47 of DoSSR as printed, or exact to third order."""
LastStep = Literal["step", "mean", "x0"]
"""What a solver returns in the end: its noisy state, that without noise, or the network's x0."""
SamplerName = Literal["ddim", "ddpm", "edm", "dpmsolver++"]
"""Samplers without domain shift."""
Prediction = Literal["shifted", "noise"]
"""What a large network's output estimates: (x_t − α·x0)/σ, the noise and the shift from x0 to y, as
DoSSR's released code reads it; or the noise ε itself, Eq. 8 of the paper."""
Schedule = Literal["scaled_linear", "linear", "cosine", "sigmoid", "squared_cosine"]
"""Noise over time: which ᾱ."""
