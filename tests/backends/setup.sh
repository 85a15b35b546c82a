#!/bin/sh
# Set up what the tests run against: every script of this folder, or those named.
#
# A script sets up one backend, may be run again at any time, and prints one sentence. It ends
# with 0 where the backend is ready, with 75 where this machine cannot have it. The tests that
# need it are skipped then, unless FABRIC_REQUIRE_BACKENDS names it: a list with commas.
set -u
folder=$(dirname "$0")
required=",${FABRIC_REQUIRE_BACKENDS:-},"
[ $# -gt 0 ] || set -- $(cd "$folder" && ls -- *.sh | sed 's/\.sh$//' | grep -vx setup)
failed=0
for name in "$@"; do
    # What takes minutes reports past the one sentence, to descriptor 3.
    said=$(sh "$folder/$name.sh" 3>&2 2>&1)
    code=$?
    if [ "$code" -eq 0 ]; then
        echo "==> test backend $name: $said"
    elif [ "$code" -eq 75 ] && [ "${required#*,"$name",}" = "$required" ]; then
        echo "==> test backend $name: skipped, $said"
    else
        echo "==> test backend $name: FAILED, $said" >&2
        failed=1
    fi
done
exit $failed
