# The two commands of the README are `make demo` and `make test`. Both do their own set-up.

CARGO ?= cargo
RELEASE := target/release
FAULTBOX := $(RELEASE)/faultbox
API := specs/orders/bin/api

.PHONY: help setup setup-tests build mutant go demo test lint unit portable chapter clients fuzz bench soak clean

help:
	@echo "make demo   build, run the chapter's matrix with a planted defect, replay and inspect a failing cell"
	@echo "make test   everything that CI runs"
	@echo "make bench  print the figures that the README quotes"
	@echo "make soak   one cell 50 times, cells at L2 recorded and every cell of every bundle replayed 20 times (TIMES=50 REPLAYS=20)"
	@echo "make clients  client libraries of Python, Node and Java against the stand-ins, each case replayed"
	@echo "make fuzz   run every fuzz target for a while (SECONDS_EACH=60)"

setup:
	@./.ci/setup

setup-tests:
	@./.ci/setup tests

build: setup
	$(CARGO) build --release --locked --workspace
	@mkdir -p $(dir $(API))
	@cp -f $(RELEASE)/orders-api $(API).new && mv -f $(API).new $(API)

# The service with its wrong versions built in (testdata/mutations); then the right one again.
mutant: setup
	$(CARGO) build --release --locked --workspace --features orders-api/mutations
	@cp -f $(RELEASE)/orders-api $(RELEASE)/orders-api-mutant
	$(CARGO) build --release --locked --workspace

# The example's service in Go, where there is a Go toolchain.
go:
	@if command -v go >/dev/null; then $(MAKE) --no-print-directory -C testdata/orders-api-go check build mutant; \
	else echo "skipped: the Go service (no Go toolchain)"; fi

demo: build
	@./.ci/demo $(FAULTBOX)

test: build lint unit portable chapter
	@echo "all checks passed"

lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings

unit: setup-tests
	$(CARGO) test --release --locked --workspace --lib --bins --test supervisor

# For macOS and Windows, and for Linux on aarch64: that it compiles.
portable: setup-tests
	@./.ci/portable

# Whole matrices, one after the other, so that they do not wait for each other's processors.
chapter: setup-tests mutant build go
	env -u GITHUB_ACTIONS -u GITHUB_STEP_SUMMARY $(CARGO) test --release --locked --workspace --test suite -- --test-threads 1

# Ordinary client libraries behind the proxies; needs python3, npm and mvn, fetches what they name.
clients: build
	@testdata/clients/run $(CURDIR)/$(FAULTBOX)

# Each fuzz target for SECONDS_EACH, from the corpus; what it adds to that lies in testdata/fuzz/found,
# what made it fail in testdata/fuzz/artifacts. TARGETS names those that are wanted.
SECONDS_EACH ?= 60
TARGETS ?= $(shell cargo fuzz list --fuzz-dir testdata/fuzz)
fuzz: setup
	@command -v cargo-fuzz >/dev/null || $(CARGO) install cargo-fuzz --locked
	@for target in $(TARGETS); do \
	  mkdir -p testdata/fuzz/found/$$target testdata/fuzz/corpus/$$target; \
	  RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir testdata/fuzz -s none $$target \
	    testdata/fuzz/found/$$target testdata/fuzz/corpus/$$target -- \
	    -max_total_time=$(SECONDS_EACH) -rss_limit_mb=3000 -timeout=20 || exit 1; \
	done

bench: build
	@CARGO=$(CARGO) ./.ci/setup bench
	@$(CARGO) bench --locked --workspace --bench proxies --bench bundles --no-run
	@CARGO=$(CARGO) ./.ci/bench $(FAULTBOX)

# Hours. What .ci/soak-replay takes from the environment narrows its part.
TIMES ?= 50
REPLAYS ?= 20
soak: build go
	@./.ci/soak $(FAULTBOX) $(TIMES)
	@./.ci/soak-seeded $(FAULTBOX) $(REPLAYS)
	@./.ci/soak-replay $(FAULTBOX) $(REPLAYS)

clean:
	$(CARGO) clean
	rm -rf $(dir $(API))
