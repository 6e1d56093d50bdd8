"""Pure numerics of domain-shift diffusion: no files, no devices, no printing.

Nothing here imports torch, but for what `samplers` asks diffusers when it is called.
"""
