# The project's everyday commands. CI runs `make ci` and nothing else, so what passes here passes there.

# Where `make run` listens: make run LISTEN=127.0.0.1:9000
LISTEN ?= 127.0.0.1:8080

# What `make fuzz` does, and for how long: make fuzz TARGET=path SECONDS=1200
TARGET ?= path
SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help run test load-test bench fuzz ci fmt build pgo deb sbom

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build and start the demo: sample proxies, a small target, and the lines to try
	@scripts/setup.sh build
	cargo run --locked -- demo --listen $(LISTEN)

test: ## Run all tests, real clients included
	@scripts/setup.sh test
	cargo test --locked

load-test: build ## Measure how it bears size, reloads, upgrades and load (takes twenty minutes); load-tests/README.md
	@export SOAK_MINUTES=$${SOAK_MINUTES:-3}; missed=; for test in load-tests/*.sh; do echo "== $$test"; $$test || missed="$$missed $$test"; done; \
	  if [ -n "$$missed" ]; then echo "missed:$$missed" >&2; exit 1; fi

bench: build ## Measure what it costs beside bare Pingora, nginx, nginx + Lua, HAProxy and Caddy (takes twenty minutes); load-tests/README.md
	@load-tests/bench/run.sh

fuzz: ## Fuzz one of the parsers that face strangers: TARGET=path SECONDS=1200; fuzz/README.md names them
	@fuzz/run.sh $(TARGET) $(SECONDS)

ci: ## Check everything: format, lints, tests, samples, units, package, dependencies
	@scripts/setup.sh ci
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	$(MAKE) --no-print-directory test
	scripts/check-samples.sh
	scripts/check-units.sh
	scripts/check-package.sh
	scripts/check-dependencies.sh

fmt: ## Format the code
	cargo fmt

build: ## Build the optimised binary, target/release/requestrocket-edge (takes minutes)
	@scripts/setup.sh build
	cargo build --locked --release

pgo: ## Build a profile-guided binary, target/pgo/requestrocket-edge, and measure what it gains (takes twenty minutes)
	@scripts/setup.sh build
	@scripts/pgo.sh

deb: ## Build the Debian package, target/debian/*.deb (takes minutes), of BINARY=target/pgo/requestrocket-edge if you like
	@scripts/setup.sh deb
ifdef BINARY
	install -D -m 755 $(BINARY) target/release/requestrocket-edge
	cargo deb --locked --no-build
else
	cargo deb --locked
endif

sbom: ## List what is in the binary, as CycloneDX: target/sbom.cdx.json
	@scripts/setup.sh sbom
	scripts/sbom.sh
