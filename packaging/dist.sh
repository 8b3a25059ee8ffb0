#!/usr/bin/env bash
# Builds one static archive per platform into $DIST, and SHA256SUMS beside them.
# The same source and toolchain give the same bytes: times, owners and order
# inside the archives are fixed.
set -euo pipefail
cd "$(dirname "$0")/.."

: "${VERSION:?set by make dist}" "${LDFLAGS:?set by make dist}"
dist="${DIST:-dist}"
go="${GO:-go}"
stamp="@$(git log -1 --format=%ct 2>/dev/null || echo 0)"

for file in LICENSE README.md CHANGELOG.md CONTRIBUTING.md docs/install.md packaging/conclave.service; do
	[ -f "$file" ] || { echo "dist: $file is missing" >&2; exit 1; }
done

rm -rf "$dist"
mkdir -p "$dist"
stage="$(mktemp -d)"
trap 'rm -rf "$stage"' EXIT

for platform in linux/amd64 linux/arm64 darwin/arm64; do
	os="${platform%/*}" arch="${platform#*/}"
	name="conclave_${VERSION}_${os}_${arch}"
	mkdir -p "$stage/$name"
	CGO_ENABLED=0 GOOS="$os" GOARCH="$arch" "$go" build -trimpath -ldflags "$LDFLAGS" -o "$stage/$name/conclave" ./cmd/conclave
	cp -R LICENSE README.md CHANGELOG.md CONTRIBUTING.md docs packaging/conclave.service "$stage/$name/"
	chmod -R u=rwX,go=rX "$stage/$name"
	tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="$stamp" -C "$stage" -cf - "$name" | gzip -n >"$dist/$name.tar.gz"
	echo "dist: $dist/$name.tar.gz"
done
(cd "$dist" && sha256sum ./*.tar.gz | sed 's| \./| |' >SHA256SUMS && sha256sum --check --quiet SHA256SUMS)
echo "dist: $dist/SHA256SUMS"
