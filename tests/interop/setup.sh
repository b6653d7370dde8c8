#!/bin/sh
# Fetches Apache Kafka's jars with Maven and compiles the Java oracle of the tests beside this file:
# jars/ and classes/, both ignored by git. Run it once; run again, it does only what is out of date.
set -eu

cd "$(dirname "$0")"

for tool in mvn java javac; do
    if ! command -v "$tool" >/dev/null 2>&1; then
        echo "setup.sh: $tool is not installed; the oracle needs a JDK (17 or newer) and Maven" >&2
        exit 1
    fi
done

# Each step leaves its stamp last, so that a step that was interrupted is done again.
if [ ! -f jars/.complete ] || [ pom.xml -nt jars/.complete ]; then
    rm -rf jars
    mvn -q -B -Dstyle.color=never -f pom.xml dependency:copy-dependencies \
        -DoutputDirectory=jars -DincludeScope=runtime
    touch jars/.complete
    rm -rf classes
fi

if [ ! -f classes/.complete ] || [ -n "$(find java -name '*.java' -newer classes/.complete)" ]; then
    rm -rf classes
    mkdir classes
    javac -Xlint:all,-classfile,-options,-path -cp 'jars/*' -d classes java/*.java
    touch classes/.complete
fi
