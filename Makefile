SHELL := /bin/bash
.DEFAULT_GOAL := help

export CLUSTER ?= test
export SLUICE_CACHE ?= $(HOME)/.cache/sluice
# one for each checkout: Cargo takes what another checkout built for its own, with that one's paths inside
CHECKOUT := $(shell pwd | cksum | cut -d' ' -f1)
export CARGO_TARGET_DIR ?= $(SLUICE_CACHE)/target/$(CHECKOUT)

VERSION := $(shell sed -n '/^\[workspace.package\]/,/^$$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
IMAGES := $(foreach part,agent operator,$(SLUICE_CACHE)/images/sluice-$(part)-$(VERSION).tar)
DENY_VERSION := 0.20.2
# of each fuzz target: in `make test`, and in the long form
FUZZ_SECONDS := 5
SOAK_FUZZ_SECONDS := 300
DENY := $(SLUICE_CACHE)/cargo-deny-$(DENY_VERSION)/bin/cargo-deny
# Clippy is rustc with more lints: builds go through it, and linting needs none of its own. A warning is an error.
LINTED := RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__
# Of the whole workspace each time, or third-party crates are compiled again with other features.
API := api fleet_live chart control_cluster
BUILD := $(LINTED) cargo build --quiet --workspace --bins --tests --locked
TEST := $(LINTED) cargo test --workspace --locked
TOOLS := e2e/cluster/tools/build.sh
# live tests that trouble nobody else's agents, operators and servers: they mostly wait, four at a time
BESIDE := delivery:: gateway:: hostile:: permission:: static_pods:: tenants::
# the tests' way to the cluster and to Kubernetes' programs
ENV = eval "$$(e2e/cluster/cluster env)" &&

##@ Code
fmt: ## format the Rust code
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml
fmt-check: ## fail where the Rust code is not formatted
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
clippy: ## lint; a warning is an error
	$(BUILD)
	$(BUILD) $(foreach test,$(API) loki live,--test $(test))
	$(LINTED) fuzz/run build
deny: ## which crates may be linked, and under which licences
	@test -x $(DENY) || CARGO_PROFILE_DEV_DEBUG=false cargo install --quiet --locked --debug --version $(DENY_VERSION) --root $(SLUICE_CACHE)/cargo-deny-$(DENY_VERSION) cargo-deny
	$(DENY) --log-level error check bans licenses sources
generate: ## CRDs from the Rust types, into crds/, the chart and kustomize
	$(BUILD)
	$(CARGO_TARGET_DIR)/debug/sluice-operator crds --out crds --docs docs/crds.md
	charts/generate.sh
check-generated: generate ## fail where a generated file is not what the types say
	git diff --exit-code -- crds charts config docs/crds.md

##@ Tests
test: deps ## every suite in order, each with its time
	.ci/suites --beside "tools images" fmt-check clippy deny check-generated test-unit fuzz test-loki test-api test-live
test-unit: deps ## pure: everything that needs no cluster
	$(TEST)
soak-kill: deps ## ten minutes each of an agent that is killed all the time, and of two whose Loki is away meanwhile
	SLUICE_KILL_SECONDS=600 $(TEST) --test spill_kill -- --nocapture
fuzz: deps ## every reader of foreign bytes, fuzzed for some seconds each
	$(LINTED) fuzz/run $(FUZZ_SECONDS)
soak-fuzz: deps ## the same, minutes each
	$(LINTED) fuzz/run $(SOAK_FUZZ_SECONDS)
soak-shared: deps ## ten minutes of twenty agents on one tenant, until their shares are even
	$(TOOLS) loki
	SLUICE_SHARED_SECONDS=480 $(TEST) --test loki -- --include-ignored --nocapture twenty_agents
soak: soak-model soak-fuzz soak-shared soak-kill ## all that takes hours
soak-model: ## two million histories of log files against the model, about an hour and a half
	CARGO_PROFILE_DEV_OPT_LEVEL=2 SLUICE_SOAK_CASES=$${SLUICE_SOAK_CASES:-2000000} cargo test -p sluice-agent --test files_model --locked
test-api: deps ## API: operator and agent beside a real API server and etcd
	$(TOOLS) kube helm
	$(TEST) $(foreach test,$(API),--test $(test))
test-loki: deps ## limits: the agent and a naive sender before a real Loki with small limits
	$(TOOLS) loki
	$(BUILD)
	$(TEST) --test loki -- --include-ignored --test-threads=2 --nocapture
test-live: images cluster-up cluster-load ## whole: operator, agents and Loki in the test cluster
	$(ENV) $(TEST) --test live -- --test-threads=4 --nocapture $(BESIDE)
	$(ENV) $(TEST) --test live -- --test-threads=1 --nocapture $(addprefix --skip ,$(BESIDE))
chaos: images cluster-up cluster-load ## ten minutes of every trouble at once; make test-live has two of them
	$(ENV) SLUICE_CHAOS_SECONDS=600 $(TEST) --test live -- --test-threads=1 --nocapture chaos
bench: ## speed beside a program that does the least possible
	bench/run

##@ Cluster (CLUSTER=test or demo)
deps: ## the Debian packages that all this needs
	@e2e/cluster/deps.sh
tools: ## Kubernetes, Loki, CoreDNS and Helm from Go modules, about 12 minutes, once
	$(TOOLS)
cluster-up: deps ## two nodes with Loki; one that runs is kept
	e2e/cluster/cluster up
cluster-down: ## all of it away
	e2e/cluster/cluster down
images: deps ## agent and operator as container images
	@# yields to the tool that tests wait for first, see e2e/cluster/tools/build.sh
	nice -n 9 e2e/cluster/sluice-images.sh
cluster-load: ## the images into every node
	e2e/cluster/cluster import $(IMAGES)

##@ Demo
demo demo-down: export CLUSTER = demo
demo: ## Sluice at work in a cluster of its own
	e2e/demo/run
demo-down: ## the demo away
	e2e/demo/down

##@ House
target-dir: ## where Cargo builds this checkout; scripts that are run by themselves ask for it
	@echo $(CARGO_TARGET_DIR)
clean: ## both clusters, images and Cargo's target away; the built tools stay
	CLUSTER=test e2e/cluster/cluster down
	CLUSTER=demo e2e/cluster/cluster down
	rm -rf $(CARGO_TARGET_DIR) $(SLUICE_CACHE)/images
help: ## this list
	@awk -F ':.*## ' '/^##@ /{printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' Makefile

.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*## .*/\1/p' Makefile)
