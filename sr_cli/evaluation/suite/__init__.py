"""The suite of `srx bench`: what must hold on a device, and how fast it is."""
