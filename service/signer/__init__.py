"""The signer: its own process, the only holder of the report key.

It takes no bytes to sign. Asked over a Unix socket to register or to seal an audit by name, it re-reads by digest what
the database names, recomputes what a report claims, composes the statement itself and signs that. It reads database
and blobs, and writes only its own folder:

    registered/<audit>.json      request digest, entropy and seed, and which weight files were hashed; written once
    sealed/<audit>/statement     the composed bytes; written once, before anything is signed
    sealed/<audit>/report/       the report directory that is handed over
    voided/<audit>.json          a registered audit that ended without a report
"""
