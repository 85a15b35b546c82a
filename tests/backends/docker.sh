#!/bin/sh
# Debian's Docker, for the tests of containers. Its service is not started: each test run has an
# engine of its own, which is tried here once.
set -u
if ! command -v dockerd > /dev/null; then
    # Debian starts what it installs unless this says no.
    policy=/usr/sbin/policy-rc.d
    made=
    if [ "$(id -u)" -eq 0 ] && [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod 755 "$policy" && made=yes
    fi
    sh "$(dirname "$0")/debian_package" dockerd docker.io
    code=$?
    [ -z "$made" ] || rm -f "$policy"
    [ "$code" -eq 0 ] || exit "$code"
fi
"${PYTHON:-.venv/bin/python}" -m temporal_fabric.testing.docker_daemon
