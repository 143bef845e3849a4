"""The transparency log: hashing, tiles, notes, proofs, the writer, and the rules of a watcher.

Formats: RFC 6962 section 2.1 (hashing, proofs), and C2SP signed-note, tlog-checkpoint, tlog-tiles and tlog-proof.
Reading opens no socket and needs no part of the writer.
"""
