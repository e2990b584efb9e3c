#!/bin/sh
# Holds the protos to those of the main branch: nothing that is sent over the wire or as JSON may change its meaning.
# $BUF is the buf command.
set -eu

for main in main origin/main; do
  if git rev-parse --quiet --verify "$main^{commit}" >/dev/null; then
    base=$main
    break
  fi
done
if [ -z "${base:-}" ]; then
  echo "buf breaking: skipped, for there is neither a branch main nor origin/main here"
  exit 0
fi
if [ -z "$(git ls-tree "$base" protos)" ]; then
  echo "buf breaking: skipped, for $base has no protos yet"
  exit 0
fi
before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
git archive "$base" protos | tar -x -C "$before"
cp -r protos/googleapis "$before/protos/"
buf=$(realpath "$(command -v "$BUF")")
cd protos
"$buf" breaking --against "$before/protos"
