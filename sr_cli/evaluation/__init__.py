"""Degradations, metrics and the tables of the papers."""
