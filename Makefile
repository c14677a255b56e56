# What a developer types; `make help` lists it. Cargo does the building.

.DEFAULT_GOAL := help
SEEDS ?= 1000
DURATION ?= 1200

.PHONY: help run build test test-offline lint stack-up stack-down stack-clean sim sim-mutations chaos chaos-mutations cite bench bench-track bench-memory clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

run: ## build and start the embedded server with the demo: moving ships on http://127.0.0.1:8080
	cargo run --locked --profile quick --no-default-features -- demo

build: ## build the complete server: target/release/alluvium
	cargo build --locked --release

test: ## install what the tests need, start the real servers, run everything, stop them
	tests/run-all

test-offline: ## the tests that need no server, no root and no network
	cargo test --locked

lint: ## formatting and clippy, warnings are errors
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --no-default-features -- -D warnings

stack-up: ## start Kafka, ZooKeeper and PostGIS on loopback; addresses in target/stack/env
	tests/stack/install stack
	tests/stack/up

stack-down: ## stop them; their data stays
	tests/stack/down

stack-clean: ## stop them and remove their data
	tests/stack/down --clean

sim: ## simulate with random faults, on fresh seeds: make sim SEEDS=1000
	SIM_FIRST=$$(date +%s)000 SIM_SEEDS=$(SEEDS) cargo test --locked --test sim every_answer -- --nocapture

sim-mutations: SEEDS = 100
sim-mutations: ## what each safeguard is for: how many of SEEDS seeds fail without it
	SIM_SEEDS=$(SEEDS) cargo test --locked --test sim without_a_safeguard -- --nocapture

chaos: ## break everything of a cluster for a while, under load, and hold every answer against the log: make chaos DURATION=1200
	tests/stack/install build stack
	cargo build --locked
	tests/e2e/chaos/run --seconds $(DURATION)

chaos-mutations: ## take safeguards away from the servers and see the chaos run notice
	tests/stack/install build stack
	cargo build --locked
	tests/e2e/chaos/mutations

cite: ## OGC's own conformance suite for WFS 2.0, on both stacks; reports in target/cite
	tests/stack/install build stack clients
	tests/stack/up
	cargo build --locked
	set -a; . target/stack/env; tests/e2e/23-cite-wfs20

bench: ## measure beside the limits of the parts, on the clustered stack
	tests/stack/install build stack bench
	bench/run

bench-track: build ## measure a track of 100,000 fixes beside updating the whole line (ALLUVIUM_POSTGRES: a PostGIS)
	bench/track

bench-memory: build ## load 10,000,000 points with 512 MB for them, beside the sweeper's own rate (FEATURES=n: another number)
	bench/memory

clean: ## remove all that was built, and the stack with its data
	tests/stack/down --clean
	cargo clean
