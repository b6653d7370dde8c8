#!/bin/sh
# Fetches RabbitMQ and the Erlang that it runs on from Debian's packages, and unpacks them into
# server/ beside this file, which git ignores. Nothing is installed into the system, and no script
# of a package is run. Run it once; run again, it does nothing.
set -eu

cd "$(dirname "$0")"

# What rabbitmq-server depends on, but for what every Debian has.
packages="rabbitmq-server erlang-asn1 erlang-base erlang-crypto erlang-eldap erlang-inets
    erlang-mnesia erlang-os-mon erlang-parsetools erlang-public-key erlang-runtime-tools
    erlang-ssl erlang-syntax-tools erlang-tools erlang-xmerl"

fail() {
    echo "setup.sh: $*" >&2
    exit 1
}

if [ -f server/.complete ]; then
    exit 0
fi
for tool in apt-get apt-cache dpkg; do
    command -v "$tool" >/dev/null 2>&1 || fail "$tool is not here: this needs Debian or its like"
done

candidate() {
    LC_ALL=C apt-cache policy rabbitmq-server 2>/dev/null | sed -n 's/^ *Candidate: //p'
}

case $(candidate) in
"" | "(none)")
    # The lists of packages are the system's: only root may bring them.
    [ "$(id -u)" -eq 0 ] || fail "apt's lists are missing or old: run 'apt-get update' as root once"
    apt-get -qq update || fail "apt-get update failed"
    ;;
esac

rm -rf server
mkdir -p server/packages
# As root, apt would fetch as a user of its own, who may not write here.
(cd server/packages && apt-get -qq -o APT::Sandbox::User="$(id -un)" download $packages) ||
    fail "the packages could not be fetched"
for package in server/packages/*.deb; do
    dpkg -x "$package" server || fail "$package could not be unpacked"
done
rm -rf server/packages
# Debian's Erlang looks for itself where it would be installed; ours looks beside the script.
erl=server/usr/lib/erlang/bin/erl
sed -i 's|ROOTDIR=/usr/lib/erlang$|ROOTDIR=$(cd "$(dirname "$0")/.." \&\& pwd)|' "$erl"
"$erl" -noinput -boot start_clean -eval 'halt(0).' ||
    fail "Erlang does not start: a library that it needs is not here"
touch server/.complete
