# make build   one static binary, bin/peerlink
# make test    everything that CI checks
# make demo    three nodes exchange messages on this machine
# make bench   benchmarks
# make fuzz    every fuzz target, for a minute each (FUZZTIME=10s)
# make soak    the fault suite for an hour (SOAK=10m, SEED=7, SOAK_REPORT=file)
# make test-rabbitmq RABBITMQ_ROOT=/path  what needs RabbitMQ, on the one in that folder
# make test-kubernetes  builds and checks the manifests in deploy/kubernetes
# make test-cluster  faults of a RabbitMQ cluster of three nodes, for half an hour
# make test-long  all cases of the tests that try only some of theirs in "make test"
# make lint    formatting, conflict markers, vet, staticcheck

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS  = -s -w -X peerlink/cmd/peerlink/internal/cli.version=$(VERSION) -X peerlink/cmd/peerlink/internal/cli.commit=$(COMMIT)
BUILD    = CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)"

# Without the paths of folders in them, compiled packages serve any other clone, too: a new one
# compiles only what has changed.
export GOFLAGS := -trimpath $(GOFLAGS)

# Each system, and each architecture, once: what a platform of its own breaks
# shows in one of them.
PLATFORMS = linux/arm64 darwin/arm64 windows/amd64

# How long each fuzz target runs in "make fuzz".
FUZZTIME ?= 1m

.PHONY: build test demo bench soak prerequisites lint unit cost fuzz cross test-rabbitmq test-cluster test-media test-long test-kubernetes

build:
	$(BUILD) -o bin/peerlink ./cmd/peerlink

demo: build
	./bin/peerlink demo

test: prerequisites lint cross test-kubernetes cost unit

# Before anything that takes long.
prerequisites:
	@.ci/prerequisites "$(GO)" >/dev/null

# There is a line of output at least every 20 seconds.
CI = bin/ci
STEP = $(CI) step
$(CI): .ci/test.go
	@echo "compiling .ci/test.go, which runs the rest"
	@CGO_ENABLED=0 $(GO) build -o $@ .ci/test.go
lint cross cost fuzz unit test-kubernetes: $(CI)

# Static, as the tests build it too: what is compiled here is compiled once.
lint: export CGO_ENABLED = 0
lint:
	@gofmt=$$($(GO) env GOROOT)/bin/gofmt; [ -x "$$gofmt" ] || gofmt=gofmt; \
	out=$$($$gofmt -l .) || exit 1; if [ -n "$$out" ]; then echo "not formatted (gofmt -w):"; echo "$$out"; exit 1; fi
	@if git rev-parse --git-dir >/dev/null 2>&1 && git grep -nIE '^(<{7}|[|]{7}|>{7})( |$$)'; then \
		echo "conflict markers in the files above: resolve the conflicts"; exit 1; fi
	@$(STEP) "go vet" $(GO) vet ./...
	@$(STEP) "staticcheck" $(GO) tool staticcheck ./...

# What only computes and is not ours, SQLite (which was C), scrypt, Deflate and the tables of characters, runs without
# the race detector: several times as fast. The driver, which hands our memory to
# SQLite, has it. Debug information takes an eighth of the compiler's time, and
# "make lint" has vetted everything.
UNWATCHED = modernc.org/sqlite/lib modernc.org/libc golang.org/x/crypto/scrypt github.com/klauspost/compress/flate unicode
RACE = -race $(foreach p,$(UNWATCHED),'-gcflags=$(p)=-dwarf=false -race=false')

# These packages start no goroutine, and take several times as long with the race detector. (Where others
# use them in several goroutines, it watches them in the tests of those.)
SEQUENTIAL = peerlink/smp peerlink/node $(addprefix peerlink/node/,check infobundle keyshare kustomize offline pki registry)
CONCURRENT = $$($(GO) list ./... $(foreach p,$(SEQUENTIAL),| grep -vx $(p)))

# The packages that take longest begin first.
LONGEST = ./link ./broker/rabbitmq ./cmd/peerlink ./cmd/peerlink/internal/cli ./link/faulttest ./broker/embedded ./doctor

# Without a C compiler there is no race detector, and everything else is tested.
# More tests and packages at once than a small machine has cores: many tests wait,
# for disks and for each other. A process with the race detector sleeps at its end, for
# reports of other threads; a second, by default, is long for many short processes.
unit: export GORACE := atexit_sleep_ms=20 $(GORACE)
unit:
	@if [ "$$(.ci/prerequisites "$(GO)")" = race ]; then set -- $(RACE); else set --; fi; \
	$(CI) unit $(GO) test -vet=off -p 2 -skip 'Cost$$' $(SEQUENTIAL) -- \
		$(GO) test -vet=off -gcflags=all=-dwarf=false "$$@" -p 4 -parallel 4 -timeout 20m $(LONGEST) $(CONCURRENT)

# The costs of parsers of untrusted input are exact without the race detector only.
cost:
	@$(STEP) "costs of parsers" $(GO) test -vet=off -run 'Cost$$' $(addprefix ./,admin broker/rabbitmq internal/jsonlimit internal/outproxy internal/sshagent link local node node/infobundle node/keyshare node/offline node/pki node/registry smp stomp)

# Every fuzz target, several at the same time. "make test" runs their seeds.
fuzz:
	@GO="$(GO)" $(CI) fuzz $(FUZZTIME)

# It must compile, statically, wherever operators may want it. Without
# optimizations that takes half the time, and fails for the same reasons.
cross:
	@set -e; for p in $(PLATFORMS); do \
		$(STEP) "build $$p" env CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -trimpath -gcflags='all=-N -l -dwarf=false' -ldflags='-s -w' -o /dev/null ./cmd/peerlink; \
	done

# A module of its own, since only this needs Kubernetes' types, which are large. They
# are compiled to be used once, so without optimizations.
QUICKLY = $(foreach p,k8s.io sigs.k8s.io github.com google.golang.org golang.org go.yaml.in gopkg.in,'-gcflags=$(p)/...=-N -l -dwarf=false')
test-kubernetes: export CGO_ENABLED = 0
test-kubernetes:
	@$(STEP) "deploy/kubernetes" $(GO) -C deploy/kubernetes/check test -vet=off $(QUICKLY) ./...

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

# Nodes as processes, and everything that can happen to them, for a long time.
test-rabbitmq: export RABBITMQ_ROOT := $(RABBITMQ_ROOT)
test-rabbitmq:
	$(GO) test -count=1 -timeout 30m ./broker/rabbitmq ./link
	$(GO) test -count=1 -timeout 30m ./cmd/peerlink

# Nodes of a cluster are killed, frozen and cut off, under load.
test-cluster: export PEERLINK_TEST_CLUSTER := 1
test-cluster: export RABBITMQ_ROOT := $(RABBITMQ_ROOT)
test-cluster:
	$(GO) test -count=1 -timeout 15m -v -run '^TestCluster' ./broker/rabbitmq
	$(GO) test -count=1 -timeout 90m -v -run '^TestCluster' ./link

# Keys and nodes on FAT, NTFS and FUSE: needs root, fusefat, ntfs-3g and bindfs.
test-media:
	PEERLINK_TEST_MEDIA=1 $(GO) test -count=1 -timeout 15m -v -run '^TestMedia$$' ./cmd/peerlink

# All cases of tests of which "make test" takes a sample: commands are killed before each
# system call that changes a file, proxies attacked in each configuration, and disks filled
# and stores killed more often.
test-long: export PEERLINK_TEST_LONG := 1
test-long:
	$(GO) test -count=1 -timeout 90m -v -run '^TestKilledAnywhere$$' ./cmd/peerlink
	$(GO) test -count=1 -timeout 15m -v -run '^TestFloodFromThePeersAddress$$' ./link
	$(GO) test -count=1 -timeout 15m -v -run '^(TestFillAndDrain|TestKilledIsNotMixed)$$' ./broker/embedded

soak: export SOAK ?= 1h
soak:
	$(GO) test -count=1 -timeout 0 -v -run '^TestSoak$$' ./link/faulttest
