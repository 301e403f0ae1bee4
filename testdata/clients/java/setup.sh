#!/bin/sh
# target/lib with Connector/J 8, target/lib9 with the one jar of Connector/J 9, target/classes.
[ -e target/lib ] || mvn -q dependency:copy-dependencies -DoutputDirectory=target/lib || exit 1
[ -e target/lib9 ] || mvn -q dependency:copy-dependencies -Dconnector=9.1.0 -DincludeArtifactIds=mysql-connector-j -DoutputDirectory=target/lib9 || exit 1
javac -nowarn -d target/classes -cp 'target/lib/*' src/*.java
