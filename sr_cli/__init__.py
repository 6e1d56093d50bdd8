"""srx: batch upscaling of photographs by domain-shift diffusion."""

__version__ = "0.1.0"
