# Copyright The Fairlead Authors.
# SPDX-License-Identifier: Apache-2.0

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS   += --no-builtin-rules
.DEFAULT_GOAL := help

# One set of flags everywhere, so that building, testing and the demo share the build cache.
export GOFLAGS     ?= -buildvcs=false
export GOTOOLCHAIN ?= local

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)

# Binary and the package it is built from. All are static: an image is a binary and nothing else.
BINARIES := operator=./operator nodeagent=./nodeagent fairlead-cni=./nodeagent/cni/plugin \
            kubectl-fairlead=./kubectl-fairlead lab=./hack/lab demo=./hack/demo sample=./test/sample

# What needs a machine of its own kind comes last and one after the other: real clusters, then nothing beside them.
PACKAGES   = $(shell go list ./... | grep -v -e /test/e2e -e /test/script)
# Where goroutines meet. The stories of test/script run all of it at once, so they run only here.
RACE       = ./mesh/relay/... ./nodeagent/apply/... ./nodeagent/flow/... ./nodeagent/intake/... ./nodeagent/table/... \
             ./operator/controllers/... ./operator/federate/... ./operator/identities/... ./operator/observe/... ./operator/report/... \
             ./operator/serve/... ./test/script/...
# What needs neither root nor a kernel of its own: no network namespaces, no maps and programs, no cgroups.
UNIT       = $(shell go list ./... | grep -v -e /test/e2e -e /test/bench -e /test/script -e 'fairlead/bpf$$' -e /hack/lab \
             -e /nodeagent/cni/plugin -e /nodeagent/kernel -e /nodeagent/tunnel)
# The engine and the programs of this machine's kernel against each other: as root, so by a tag of its own.
DATAPATH   = -tags datapath -run '^TestDatapath' ./mesh/policy
SECTION    = @printf '\n==== %s  [%s]\n' "$@" "$$(date +%T)"

.PHONY: help
help: ## Tell what can be done (this)
	@echo 'Fairlead makes many Kubernetes clusters one network, driven from Git.'
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo 'On Debian-like machines, as root (demo and test start real clusters). Built tools are kept'
	@echo 'in ~/.cache/fairlead by version; FAIRLEAD_CACHE puts them elsewhere.'

.PHONY: demo
demo: ## Two real clusters become one mesh, told step by step; stays up afterwards
	go run ./hack/lab tools
	go run ./hack/demo up

.PHONY: demo-down
demo-down: ## Remove every trace of the demo, also after a crash in its middle
	go run ./hack/demo down

.PHONY: tools
tools: ## Install Debian packages and build the pinned third-party programs
	go run ./hack/lab tools

.PHONY: build
build: ## Build all binaries, static, into bin/
	@mkdir -p bin
	@for b in $(BINARIES); do \
		echo "bin/$${b%%=*}"; \
		CGO_ENABLED=0 go build -ldflags '$(LDFLAGS)' -o "bin/$${b%%=*}" "$${b#*=}"; \
	done

.PHONY: generate
generate: ## Remake generated files: protobuf, deep copies, CRDs, eBPF objects
	go run ./hack/generate

.PHONY: test
test: tools lint generated test-packages test-race test-e2e ## Every test, those on real clusters among them

.PHONY: generated
generated: ## Fail if a generated file is not what its source makes
	$(SECTION)
	go run ./hack/generate -check

.PHONY: lint
lint: ## Format and linters (golangci-lint, pinned)
	$(SECTION)
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo 'not formatted:'; gofmt -l $$(git ls-files '*.go'); exit 1; }
	go run ./hack/lint

.PHONY: test-unit
test-unit: ## Tests that need no root: no network namespaces, eBPF or clusters
	go test $(UNIT)

.PHONY: test-packages
test-packages: ## All tests but those on real clusters (root, for namespaces and eBPF)
	$(SECTION)
	go test -timeout 15m $(PACKAGES)
	go test -timeout 15m $(DATAPATH)

.PHONY: fuzz
fuzz: ## Random policies and packets: documentation, reference, compiled rows and the kernel's programs must agree (root; FUZZ=30m)
	go test -count=1 -timeout 0 -v $(DATAPATH) -for $(FUZZ) -rapid.checks 1000

FUZZ ?= 30m

.PHONY: test-race
test-race: ## The parts where goroutines meet, and the stories of the whole control path, under the race detector
	$(SECTION)
	go test -race -timeout 15m $(RACE)

.PHONY: test-e2e
test-e2e: tools ## The demo's claims and bad input, asserted on two real clusters
	$(SECTION)
	go test -count=1 -timeout 30m ./test/e2e/...

.PHONY: bench
bench: ## Measure the datapath and the control plane (on the demo's clusters; starts them if there are none)
	go run ./hack/lab tools
	go run ./test/bench/datapath
	go run ./test/bench/connections
	go test -run '^$$' -bench . -timeout 30m ./test/bench/...
	@go run ./hack/lab status | grep -q '^instance' || go run ./hack/demo up
	go run ./test/bench/controlplane

.PHONY: conformance-policy
conformance-policy: demo ## Run others' suites of network policy on the demo's clusters, into docs/conformance (root; an hour and a half after the first time)
	go run ./test/conformance

.PHONY: evade
evade: demo ## Let pods of the demo's clusters try to get around policy, into docs/conformance/evade.md (root; 15 minutes)
	go run ./test/evade

.PHONY: kernels
kernels: ## Run the tests of what talks to the kernel on Debian's 6.1 and 6.12 in emulated machines, into docs/kernels.md (root; an hour)
	go run ./test/vm

.PHONY: bench-scale
bench-scale: ## Measure the control path at 1 to 250 clusters into docs/scale.md (root; SIZES=1,10 for less, LABEL names the result)
	go run ./test/bench/scale -sizes '$(SIZES)' -label '$(LABEL)'
	go run ./test/bench/scale -only services,policies,status -label '$(LABEL)'

SIZES ?= 1,10,100,250
LABEL ?= today
