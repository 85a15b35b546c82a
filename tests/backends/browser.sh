#!/bin/sh
# Chromium, for the tests that read the web UI as a person does.
set -u
found=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
[ -n "$found" ] || sh "$(dirname "$0")/debian_package" chromium chromium || exit
found=${found:-$(command -v chromium)}
echo "$("$found" --version 2> /dev/null) at $found"
