"""A release policy: read strictly, normalised to one digest, decided from a report's numbers.

    from assay.policy import language, loader

    policy = language.parse(loader.read(data, "policy.yaml"))

Section 11 of the report's specification. Everything here is a pure function of its arguments.
"""
