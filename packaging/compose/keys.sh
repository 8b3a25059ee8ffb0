#!/usr/bin/env bash
# Makes what the trial cluster of docker-compose.yml needs before its first
# start: a CA and one certificate for the three nodes, a cluster secret, and the
# key of the static seal (in .env). It keeps what is there already; to start
# anew, remove packaging/compose/keys and .env, and the volumes with them.
set -euo pipefail
cd "$(dirname "$0")/../.."

keys=packaging/compose/keys
umask 077
mkdir -p "$keys"

# The directory is closed to others. The files in it are readable, because the
# container's user (65532) reads them through a bind mount of the file alone.
if [ ! -s "$keys/node.crt" ]; then
	openssl ecparam -name prime256v1 -genkey -noout -out "$keys/ca.key"
	openssl req -x509 -new -key "$keys/ca.key" -sha256 -days 365 -subj "/CN=Conclave trial CA" \
		-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign -out "$keys/ca.pem"
	openssl ecparam -name prime256v1 -genkey -noout -out "$keys/node.key"
	openssl req -new -key "$keys/node.key" -subj "/CN=conclave" -out "$keys/node.csr"
	openssl x509 -req -in "$keys/node.csr" -CA "$keys/ca.pem" -CAkey "$keys/ca.key" -CAcreateserial -sha256 -days 365 \
		-extfile <(printf '%s\n' \
			'subjectAltName=DNS:node1,DNS:node2,DNS:node3,DNS:localhost,IP:127.0.0.1' \
			'basicConstraints=critical,CA:FALSE' 'keyUsage=critical,digitalSignature' \
			'extendedKeyUsage=serverAuth,clientAuth') -out "$keys/node.crt" 2>/dev/null
	rm -f "$keys/node.csr" "$keys/ca.key" "$keys/ca.srl"
fi
if [ ! -s "$keys/cluster.secret" ]; then
	openssl rand -base64 32 >"$keys/cluster.secret"
fi
chmod 0644 "$keys"/*
if ! grep -qs '^CONCLAVE_SEAL_KEY=' .env; then
	printf 'CONCLAVE_SEAL_KEY=%s\n' "$(openssl rand -base64 32)" >>.env
fi
chmod 0600 .env
