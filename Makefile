# The two commands of the README are `make demo` and `make test`. Both do their own set-up.

CARGO ?= cargo
RELEASE := target/release
FAULTBOX := $(RELEASE)/faultbox
API := specs/orders/bin/api

.PHONY: help setup build mutant demo test lint unit chapter bench soak clean

help:
	@echo "make demo   build, run the chapter's matrix with a planted defect, replay and inspect a failing cell"
	@echo "make test   everything that CI runs"
	@echo "make bench  print the figures that the README quotes"

setup:
	@./.ci/setup

build: setup
	$(CARGO) build --release --locked --workspace
	@mkdir -p $(dir $(API))
	@cp -f $(RELEASE)/orders-api $(API).new && mv -f $(API).new $(API)

# The service with its wrong versions built in (testdata/mutations); then the right one again.
mutant: setup
	$(CARGO) build --release --locked --workspace --features orders-api/mutations
	@cp -f $(RELEASE)/orders-api $(RELEASE)/orders-api-mutant
	$(CARGO) build --release --locked --workspace

demo: build
	@./.ci/demo $(FAULTBOX)

test: build lint unit chapter
	@echo "all checks passed"

lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings

unit: setup
	$(CARGO) test --release --locked --workspace --lib --bins --test supervisor

# Whole matrices, one after the other, so that they do not wait for each other's processors.
chapter: mutant build
	$(CARGO) test --release --locked --workspace --test suite -- --test-threads 1

bench: build
	@./.ci/bench $(FAULTBOX)

clean:
	$(CARGO) clean
	rm -rf $(dir $(API))
