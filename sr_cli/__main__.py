"""`python -m sr_cli` is `srx`."""

from sr_cli.cli.app import main

main()
