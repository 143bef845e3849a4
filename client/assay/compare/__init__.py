"""Compare two verified reports, and judge a replication against its original.

from assay.compare.compare import compare
from assay.compare.sides import load

seen_a, seen_b = verify(a, keys=keys), verify(b, keys=keys)
made = compare(load(a, seen_a), load(b, seen_b))
print(made.render_text())
"""
