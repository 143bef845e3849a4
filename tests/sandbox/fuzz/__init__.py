"""Bounded, seeded fuzzers: what they make is refused within the error root, or accepted and valid by another judge."""
