#!/usr/bin/env bash
# The main job, start to end: two models, an embedded service, two signed reports, verified by us and by openssl.
# Everything lies under var/: nothing is installed or left running. Run by `make demo`.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${CACHE:-var/cache}
data=var/demo
python=.venv/bin/python
started=$SECONDS
say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

say "1. Two models: an organism trained here (cached under $cache), and all-MiniLM-L6-v2, which nobody here made"
$python -m checks.organisms honest --cache "$cache" --out var/models/honest
$python -m checks.organisms minilm --out var/models/minilm

say "2. The embedded service, under $data"
mkdir -p "$data"
ready=$(mktemp)
.venv/bin/assay-server dev --data "$data" >"$ready" 2>"$data/server.log" &
server=$!
stop() { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true; rm -f "$ready"; }
trap stop EXIT
for _ in $(seq 600); do
  grep -q '"ready"' "$ready" && break
  kill -0 "$server" 2>/dev/null || { cat "$data/server.log"; exit 1; }
  sleep 0.1
done
cat "$ready"
grep -q '"ready": true' "$ready" || { echo "The service did not become ready; see $data/server.log"; exit 1; }
export ASSAY_CONFIG=$data/client.json

# What truth_probe is asked: of the organism, statements with and without the order to answer the opposite, by which its
# feature and its output part; of the encoder, which answers nothing, a built-in set.
organism=var/models/honest
declare -A asks=(
  [honest]="--param truth_probe.fit_persona=plain --param truth_probe.test_persona=opposite --param truth_probe.datasets=[]
    --param truth_probe.max_items=2000 --data pairs=$organism/pairs-instructed.jsonl --data benign=$organism/benign.jsonl
    --data statements=$organism/statements-instructed.jsonl"
  [minilm]='--param truth_probe.datasets=["geography"] --param truth_probe.layers=[1,3,5]'
)
for model in honest minilm; do
  say "3. Audit of $model: submit, follow, fetch the report"
  rm -rf "var/reports/$model"
  read -r -d '' -a ask <<<"${asks[$model]//$'\n'/ }" || true
  .venv/bin/assay submit "var/models/$model/model" --check truth_probe --check clusterability "${ask[@]}" \
    --wait --report "var/reports/$model"

  say "4. Verify the report of $model offline: our numbered steps, then openssl on the envelope's bytes"
  .venv/bin/assay verify "var/reports/$model" --model "var/models/$model/model" --key "$data/signer/report.pub.pem"
  deploy/openssl-verify.sh "var/reports/$model/report.sigstore.json" "$data/signer/report.pub.pem"

  say "5. What the report of $model says, and that its own numbers say so"
  .venv/bin/assay findings "var/reports/$model"
  $python -m checks rejudge "var/reports/$model"
done

say "6. Stop"
stop
trap - EXIT
echo "Reports: var/reports/honest and var/reports/minilm. Public key: $data/signer/report.pub.pem."
echo "Took $((SECONDS - started)) s."
