"""DoSSR as released: its networks, its checkpoint, and how one becomes a model of srx."""
