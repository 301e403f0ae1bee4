#!/bin/sh
# The service under test: the cases behind HTTP. Its working directory is this one.
exec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp 'target/classes:target/lib/*' Serve
