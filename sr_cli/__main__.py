"""The command `srx`, also as `python -m sr_cli`: Ctrl-C is silent from the first import on."""

import sys


def main() -> None:
    """Run the command line and exit with a code of sr_cli.errors, or 130 after Ctrl-C."""
    try:
        from sr_cli.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
