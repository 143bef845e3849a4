"""Wiring: configuration, keys, the command line, and the tree of processes. The only floor that sees all others."""
