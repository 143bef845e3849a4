"""Attacks on a cell. One program for both sides: inside a cell it is the untrusted module, outside it is the control.

It is mounted as `/code/attacks` and imports nothing but the standard library. Nothing here harms a host if it succeeds:
calls are made with arguments that the kernel refuses after it has decided that they are allowed, files are opened and
not written, signals go to processes that were started for it.
"""
