#!/usr/bin/env bash
# Tests of tools/fetch_weights without a network: what it refuses, and that it then leaves nothing behind.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
  echo "FAILED: $1" >&2
  cat "$work/err" >&2
  exit 1
}
# expect CODE TEXT ARGUMENT..: exit code, and a text on stderr
expect() {
  local code=0
  GAN_PIPELINE_INCEPTION_URL=$url "$root/tools/fetch_weights" "${@:3}" >"$work/out" 2>"$work/err" || code=$?
  [[ $code == "$1" ]] || fail "exit code $code, expected $1"
  grep -q -- "$2" "$work/err" || fail "no '$2' in the message"
}

url=file://$work/other.pth
expect 3 "could not download $url" "$work/to"
cp "$root/tests/tools/fixtures/zip.pth" "$work/other.pth"
expect 3 "its SHA-256 is $(sha256sum "$work/other.pth" | cut -d' ' -f1), expected one that begins with 6726825d" "$work/to"
[[ -z $(ls -A "$work/to") ]] || fail "left files behind"
expect 2 "Usage" --force
expect 2 "Usage" "$work/to" more
touch "$work/to/inception_v3.safetensors"
expect 0 "is there already" "$work/to"
[[ ! -s $work/to/inception_v3.safetensors ]] || fail "changed a file that was there"
echo "fetch_weights_test: passed"
