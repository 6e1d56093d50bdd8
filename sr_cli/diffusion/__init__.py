"""Pure numerics of domain-shift diffusion: no files, no devices, no printing."""
