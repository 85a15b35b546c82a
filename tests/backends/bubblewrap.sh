#!/bin/sh
# bubblewrap, for the tests of the sandbox: Debian's package, where this is root's to install.
set -u
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! command -v bwrap > /dev/null; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
        echo "there is no bwrap, and no root with apt-get to install the package bubblewrap"
        exit 75
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -qq -y --no-install-recommends bubblewrap > "$log" 2>&1 ||
        { apt-get update -qq && apt-get install -qq -y --no-install-recommends bubblewrap; } \
            > "$log" 2>&1 || { echo "the package bubblewrap cannot be installed"; tail -3 "$log"; exit 75; }
fi
if ! bwrap --unshare-user --unshare-pid --ro-bind / / true 2> "$log"; then
    echo "this machine refuses namespaces: $(cat "$log")"
    exit 75
fi
echo "$(bwrap --version) at $(command -v bwrap)"
