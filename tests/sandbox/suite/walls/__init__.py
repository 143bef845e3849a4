"""Cells with a layer taken away, and hosts that lack one: for tests alone. Standard library and `sandbox` only.

The folder is copied beside `sandbox` and run as a module by an unprivileged user, as `sandbox report` is.
"""
