# Conclave's make targets. `make` alone lists them.

GO         ?= go
DOCKER     ?= docker
IMAGE      ?= conclave:local
FUZZTIME   ?= 10s
DIST       := dist

# The version is strict semver, because clients parse what sys/health reports.
REVISION   := $(shell git describe --always --dirty --exclude '*' 2>/dev/null || echo unknown)
TAG        := $(shell git describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null | sed 's/^v//')
VERSION    ?= $(if $(TAG),$(TAG),0.1.0-dev+$(REVISION))

LDFLAGS    := -s -w -X main.version=$(VERSION)
STATIC     := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'

.DEFAULT_GOAL := help
.PHONY: help build test check bench torture local image compose-test dist fuzz clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-13s %s\n", $$1, $$2 }'

build: ## build the static binary bin/conclave
	$(STATIC) -o bin/conclave ./cmd/conclave

test: ## vet, then every test with the race detector (under 30 minutes on 2 cores)
	$(GO) vet ./...
	@echo 'Not run here: faults that need root (network partitions, full disks) or hours (long histories, soak). They are in `make torture`.'
	$(GO) test -race -count=1 -timeout 25m ./...

check: ## formatting, vet and the rules of the house: seconds, run it before each commit
	@unformatted="$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go' | grep -v '/testdata/'))"; \
	if [ -n "$$unformatted" ]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags torture ./...
	$(GO) test ./internal/house

bench: ## measure a cluster: table of ops/s, latency, CPU and memory (BENCH_FLAGS)
	$(GO) run ./integration/bench $(BENCH_FLAGS)

torture: ## faults that need root or hours (TORTURE_FLAGS)
	$(GO) test ./integration -tags torture -run Torture -timeout 150m -v $(TORTURE_FLAGS)

local: build ## start three real nodes on this machine and show what they do
	bin/conclave local up
	bin/conclave local tour

image: ## build the container image conclave:local, FROM scratch, and the keys for docker-compose.yml
	rm -rf bin/image && mkdir -p -m 0700 bin/image/root/data bin/image/root/audit && mkdir -m 1777 bin/image/root/tmp
	$(STATIC) -o bin/image/conclave ./cmd/conclave
	chmod 0755 bin/image/conclave
	$(DOCKER) build -t $(IMAGE) -f packaging/Dockerfile bin/image
	packaging/compose/keys.sh

compose-test: ## three containers: write through one, read through another, stop one, read again
	IMAGE=$(IMAGE) VERSION='$(VERSION)' packaging/compose-test.sh

dist: ## static archives for linux and macOS, with checksums, in dist/
	VERSION='$(VERSION)' LDFLAGS='$(LDFLAGS)' DIST=$(DIST) GO='$(GO)' packaging/dist.sh

fuzz: ## run every fuzz test for FUZZTIME (10s) each
	FUZZTIME=$(FUZZTIME) GO='$(GO)' packaging/fuzz.sh

clean: ## remove what make built
	rm -rf bin $(DIST)
