#!/bin/sh
# bubblewrap, for the tests of the sandbox.
set -u
sh "$(dirname "$0")/debian_package" bwrap bubblewrap || exit
if ! said=$(bwrap --unshare-user --unshare-pid --ro-bind / / true 2>&1); then
    echo "this machine refuses namespaces: $said"
    exit 75
fi
echo "$(bwrap --version) at $(command -v bwrap)"
