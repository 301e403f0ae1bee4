#!/bin/sh
[ -e .venv ] || { python3 -m venv .venv && ./.venv/bin/pip -q install -r requirements.txt; }
