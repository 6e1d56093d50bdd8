"""The command line: the only part that prints, parses options or exits."""
