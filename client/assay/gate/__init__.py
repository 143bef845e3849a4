"""The release gate: a verified report and a policy in, one outcome and one exit code out, in every format a CI reads.

Sections 2, 11 and 12 of the report's specification. `gate.decide` is pure; `outputs.write` is the only one that writes.
"""
