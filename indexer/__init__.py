"""Offline work: import, split, train, build, evaluate; and the command line that drives it."""
