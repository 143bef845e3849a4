#!/usr/bin/env bash
# Fails when a committed generated file is not what its generator makes today, and says which command makes it anew.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
stale=0
check() { # generated, committed, command
  if ! diff -q "$1" "$2" >/dev/null; then
    echo "stale: $2 (run: $3)"
    stale=1
  fi
}
protos/generate.sh "$fresh" >/dev/null 2>&1
for file in "$fresh"/assay/api/v1/*.py*; do
  check "$file" "client/assay/api/v1/$(basename "$file")" "make proto"
done
.venv/bin/python -m checks catalogue --out "$fresh/catalogue.json" --architectures "$fresh/architectures.json"
check "$fresh/catalogue.json" client/assay/catalogue.json "make catalogue"
check "$fresh/architectures.json" checks/architectures.json "make catalogue"
.venv/bin/python -m checks.truth_probe.sets.generate --check || { echo "(run: make sets)"; stale=1; }
exit "$stale"
