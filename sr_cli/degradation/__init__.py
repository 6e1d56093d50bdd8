"""How LR images come about: blur, resizing, noise and JPEG, for training and data."""
