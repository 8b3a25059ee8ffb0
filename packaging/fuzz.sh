#!/usr/bin/env bash
# Runs every fuzz test of the tree for FUZZTIME (a duration, default 10s) each,
# one after another, and ends at the first failure.
set -euo pipefail
cd "$(dirname "$0")/.."

fuzztime="${FUZZTIME:-10s}"
go="${GO:-go}"

targets="$(grep -rnoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed -E 's|^(.*)/[^/]+:[0-9]+:func (.*)$|\1 \2|' | sort -u || true)"
if [ -z "$targets" ]; then
	echo "fuzz: there are no fuzz tests in the tree" >&2
	exit 1
fi

count=0
while read -r package name; do
	echo "fuzz: $package $name ($fuzztime)"
	"$go" test "$package" -run '^$' -fuzz "^$name\$" -fuzztime "$fuzztime" -fuzzminimizetime 2s </dev/null
	count=$((count + 1))
done <<<"$targets"
echo "fuzz: $count fuzz tests, no failure"
