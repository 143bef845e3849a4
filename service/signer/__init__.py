"""The signer: its own process, the only holder of the report key and the log key.

It takes no bytes to sign. Asked over a Unix socket to register or to seal an audit by name, it re-reads by digest what
the database names, recomputes what a report claims, composes the statement itself and signs that. It reads database
and blobs, and writes only its own folder:

    registered/<audit>.json      request digest, and which weight files were hashed; written before it is logged
    registered/<audit>.tlog-proof  the receipt: that the request is in the log
    salts/<model>                what a model's leaves are tagged with
    sealed/<audit>/statement     the composed bytes; written once, before it is logged and signed
    sealed/<audit>/logged.json   the proofs of its leaf
    sealed/<audit>/report/       the report directory that is handed over
    voided/<audit>.json          a registered audit that ended without a report, and <audit>.tlog-proof
    log/                         the transparency log: tiles and checkpoint (`assay.tlog`)
"""
