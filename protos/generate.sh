#!/usr/bin/env bash
# Makes the Python stubs from the protos: `generate.sh [OUT]`, by default into the client. Run by `make proto`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/../client}
mkdir -p "$out/assay/api/v1"
python=${PYTHON:-$here/../.venv/bin/python}
"$python" -m grpc_tools.protoc -I "$here" \
  --plugin=protoc-gen-mypy="$(dirname "$python")/protoc-gen-mypy" \
  --plugin=protoc-gen-mypy_grpc="$(dirname "$python")/protoc-gen-mypy_grpc" \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="$out" --mypy_grpc_out="$out" \
  "$here"/assay/api/v1/*.proto
