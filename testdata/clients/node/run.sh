#!/bin/sh
# The service under test: the cases behind HTTP. Its working directory is this one.
exec node serve.js
