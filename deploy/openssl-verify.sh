#!/usr/bin/env bash
# Verify a report's signature with openssl alone: `openssl-verify.sh report.sigstore.json report.pub.pem`.
# What is signed is the DSSE pre-authentication encoding: DSSEv1 SP len(type) SP type SP len(body) SP body, over bytes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 - "$1" "$work" <<'PY'
import base64, json, pathlib, sys
envelope = json.loads(pathlib.Path(sys.argv[1]).read_bytes())["dsseEnvelope"]
kind, body = envelope["payloadType"].encode(), base64.b64decode(envelope["payload"])
out = pathlib.Path(sys.argv[2])
(out / "pae").write_bytes(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body))
(out / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
PY
printf 'openssl: '
openssl dgst -sha256 -verify "$2" -signature "$work/sig" "$work/pae"
