"""Tensor to tensor (upscaler), file to tensor (images), files to events (batch)."""
