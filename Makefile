# What people do with this repository; "make help" lists it.
#
# Everything works on a fresh Debian with Go and root: missing packages are
# installed by apt-get.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := all

# One configuration for binaries, tests and checks, so that everything is compiled
# once. The race detector alone needs another.
export CGO_ENABLED := 0
export GOFLAGS := -trimpath

PROGRAMS := trouped troupe-keeper troupe
UP ?=
PURGE ?=
SEEDS ?= 2000

# command:package pairs, and those whose command is not there.
RUN_NEEDS  := containerd:containerd runc:runc nft:nftables ip:iproute2
TEST_NEEDS := $(RUN_NEEDS) busybox:busybox-static gcc:gcc nsenter:util-linux unshare:util-linux
missing = $(sort $(foreach n,$(1),$(if $(shell command -v $(firstword $(subst :, ,$(n)))),,$(lastword $(subst :, ,$(n))))))

# Installs the packages of the commands that are missing.
define install
@set -- $(call missing,$(1)); \
if [ $$# -gt 0 ]; then \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "missing: $$*: install them, or call make as root on Debian" >&2; exit 1; \
	fi; \
	echo "installing $$*"; \
	apt-get -qq update >/dev/null || true; \
	DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "$$@" >/dev/null; \
fi
endef

.PHONY: all help build up down check test e2e images bench sim docs generate clean

all: test ## check everything and run every test (the default)

help: ## list what make does
	@sed -nE 's/^([a-z0-9]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name what; do printf '  make %-10s %s\n' "$$name" "$$what"; done

build: ## build bin/troupe, bin/trouped and bin/troupe-keeper
	@go build -ldflags '-s -w' -o bin/ $(PROGRAMS:%=./cmd/%)

up: build ## start the agent in the background and wait until the node is Ready (UP='--name n1 …' for more flags)
	$(call install,$(RUN_NEEDS))
	@bin/troupe up --detach $(UP)
	@printf '%s\n' '' 'Now try:' \
		'  make images                                  # images without a registry' \
		'  bin/troupe image load bin/images/nginx.tar' \
		'  bin/troupe apply -f examples/nginx/nginx.yaml' \
		'  bin/troupe get pods -o wide -w' \
		'  bin/troupe actors'

down: build ## stop the agent and its pods; PURGE=1 also removes everything that they left
	@bin/troupe down $(if $(PURGE),--purge)

check: ## go vet, staticcheck, gofumpt
	$(call install,$(TEST_NEEDS))
	@go vet ./...
	@go tool -modfile=tools/go.mod staticcheck ./...
	@badly=$$(git ls-files -co --exclude-standard '*.go' | grep -v '\.pb\.go$$' | xargs go tool -modfile=tools/go.mod gofumpt -l); \
	if [ -n "$$badly" ]; then echo "not formatted (go tool -modfile=tools/go.mod gofumpt -w FILE):"; echo "$$badly"; exit 1; fi

test: check build images ## every test there is: check, unit tests with -race, simulation, real containers
	@go list ./... | grep -v /test/e2e | CGO_ENABLED=1 xargs go test -race -timeout 30m
	@go test -count=1 -timeout 30m ./test/sim -args -seeds=$(SEEDS)
	@go test -count=1 -timeout 30m ./test/e2e/...

e2e: build images ## only the tests on real containers (RUN=name for one of them)
	$(call install,$(TEST_NEEDS))
	@go test -count=1 -timeout 30m ./test/e2e/... $(if $(RUN),-run '$(RUN)' -v)

images: ## build the images of tests and examples into bin/images
	@apt-cache show nginx >/dev/null 2>&1 || apt-get -qq update >/dev/null || true # a fresh machine knows no packages
	@go run ./test/images

bench: build images ## print the figures of DESIGN 12 beside raw containerd
	$(call install,$(TEST_NEEDS))
	@go run ./test/bench

sim: ## simulate a machine with faults: SEED=n one seed with its trace, SEEDS=n that many
	@go test -count=1 ./test/sim -args $(if $(SEED),-seed=$(SEED),-seeds=$(SEEDS))

docs: ## write the generated pages of docs/ anew
	@go test -count=1 ./api ./gateway -run 'PodSpec|PublishedManifests' -args -update

generate: ## write the generated code anew from messages/*.proto
	$(call install,protoc:protobuf-compiler protoc:libprotobuf-dev)
	@mkdir -p .cache/tools
	@go build -modfile=tools/go.mod -o .cache/tools/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
	@PATH=$(CURDIR)/.cache/tools:$$PATH protoc -I messages --go_out=messages --go_opt=paths=source_relative --go-grpc_out=messages --go-grpc_opt=paths=source_relative messages/*.proto

clean: ## remove what was built
	@rm -rf bin .cache
