#!/bin/sh
[ -e node_modules ] || npm install --silent --no-audit --no-fund --no-package-lock
