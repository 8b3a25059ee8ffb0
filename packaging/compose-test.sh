#!/usr/bin/env bash
# Brings the cluster of docker-compose.yml up in an empty project of its own,
# writes through one node, reads through another, stops a node, reads again, and
# takes everything down. Where no Docker engine answers, one with a data
# directory of its own is started for the test and ended after it.
set -euo pipefail
cd "$(dirname "$0")/.."

export IMAGE="${IMAGE:-conclave:local}"
export COMPOSE_PROJECT_NAME="conclave-test-$$"
deadline_seconds=120
scratch="$(mktemp -d)"
engine_pid=""

say() { echo "compose-test: $*"; }
die() { say "$*" >&2; exit 1; }

# eventually WHAT COMMAND… repeats the command until it succeeds or time is up.
eventually() {
	local what="$1" end=$((SECONDS + deadline_seconds))
	shift
	until "$@" >"$scratch/last.out" 2>"$scratch/last.err"; do
		if [ "$SECONDS" -ge "$end" ]; then
			tail -n 20 "$scratch/last.err" >&2
			die "gave up after ${deadline_seconds} s: $what"
		fi
		sleep 0.5
	done
	say "$what"
}

need() {
	command -v "$1" >/dev/null && return
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || die "$1 is needed (Debian: apt-get install $2)"
	say "installing $2"
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >"$scratch/apt.log" 2>&1 || { cat "$scratch/apt.log" >&2; exit 1; }
}

# start_engine makes sure that an engine answers, ours if there is no other.
start_engine() {
	if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
		return
	fi
	[ "$(id -u)" = 0 ] || die "no Docker engine answers, and only root can start one"
	need dockerd docker.io
	need docker docker.io
	need iptables iptables
	export DOCKER_HOST="unix://$scratch/docker.sock"
	dockerd --data-root "$scratch/engine" --exec-root "$scratch/exec" --pidfile "$scratch/docker.pid" \
		--host "$DOCKER_HOST" >"$scratch/dockerd.log" 2>&1 &
	engine_pid=$!
	local end=$((SECONDS + deadline_seconds))
	until docker info >/dev/null 2>&1; do
		kill -0 "$engine_pid" 2>/dev/null && [ "$SECONDS" -lt "$end" ] || { tail -n 20 "$scratch/dockerd.log" >&2; die "the Docker engine did not start"; }
		sleep 0.5
	done
	say "started a Docker engine (process $engine_pid)"
}

compose() {
	if docker compose version >/dev/null 2>&1; then
		docker compose -f docker-compose.yml "$@"
	else
		docker-compose -f docker-compose.yml "$@"
	fi
}

finish() {
	local status=$?
	trap - EXIT
	if [ "$status" -ne 0 ] && [ -f "$scratch/up" ]; then
		# The init container prints shares: its log stays out.
		compose logs --tail=40 node1 node2 node3 >&2 || true
	fi
	if [ -f "$scratch/up" ]; then
		compose down --volumes --timeout 10 >"$scratch/down.log" 2>&1 || { cat "$scratch/down.log" >&2; status=1; }
		say "took the containers and volumes down"
	fi
	if [ -n "$engine_pid" ]; then
		kill "$engine_pid" 2>/dev/null || true
		wait "$engine_pid" 2>/dev/null || true
		say "ended the Docker engine"
	fi
	rm -rf "$scratch" || status=1
	exit "$status"
}

# on NODE COMMAND… runs the CLI inside a node's container, as root of the vault.
on() {
	local node="$1"
	shift
	compose exec -T -e CONCLAVE_TOKEN "$node" /conclave "$@"
}

root_token() {
	local id
	id="$(compose ps -q init)" && [ -n "$id" ] || return 1
	CONCLAVE_TOKEN="$(docker logs "$id" 2>/dev/null | sed -n 's/.*"root_token": *"\([^"]*\)".*/\1/p' | tail -n 1)"
	[ -n "$CONCLAVE_TOKEN" ]
}

opened() { on "$1" status; }

reads() {
	local got
	got="$(on "$1" kv get -mount=trial -field=colour first)" || return 1
	[ "$got" = "$2" ] || { echo "read '$got' through $1, want '$2'" >&2; return 1; }
}

main() {
	trap finish EXIT
	need openssl openssl
	start_engine
	docker compose version >/dev/null 2>&1 || need docker-compose docker-compose
	packaging/compose/keys.sh
	make image IMAGE="$IMAGE" ${VERSION:+VERSION="$VERSION"}

	# An engine that may not raise limits cannot give containers more than it has.
	local locked
	locked="$(ulimit -H -l)"
	if [ "$locked" != unlimited ]; then
		export CONCLAVE_MEMLOCK=$((locked * 1024))
	fi

	touch "$scratch/up"
	compose up -d
	eventually "the cluster is initialised" root_token
	export CONCLAVE_TOKEN
	for node in node1 node2 node3; do
		eventually "$node is open" opened "$node"
	done

	on node1 audit enable file file_path=/audit/audit.log
	on node1 secrets enable -path=trial -version=2 kv
	on node1 kv put -mount=trial first colour=green
	reads node2 green || die "what node1 acknowledged is not read through node2"
	say "wrote through node1, read through node2"

	compose stop -t 10 node1
	eventually "node1 is stopped, node3 reads" reads node3 green
	on node2 kv put -mount=trial first colour=blue
	reads node3 blue || die "what node2 acknowledged is not read through node3"
	say "wrote through node2 and read through node3 without node1"

	compose start node1
	eventually "node1 came back, opened by itself and reads" reads node1 blue
	eventually "the audit logs of all nodes are whole and the same" on node2 audit verify
	cat "$scratch/last.out"
	say "passed"
}

main "$@"
