#!/bin/sh
# Debian's Docker and image registry, for the tests of containers. Their services are not started:
# each test run has an engine of its own, which is tried here once.
set -u
if ! command -v dockerd > /dev/null || ! command -v docker-registry > /dev/null; then
    # Debian starts what it installs unless this says no.
    policy=/usr/sbin/policy-rc.d
    made=
    if [ "$(id -u)" -eq 0 ] && [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod 755 "$policy" && made=yes
    fi
    sh "$(dirname "$0")/debian_package" dockerd docker.io &&
        sh "$(dirname "$0")/debian_package" docker-registry docker-registry
    code=$?
    [ -z "$made" ] || rm -f "$policy"
    [ "$code" -eq 0 ] || exit "$code"
fi
"${PYTHON:-.venv/bin/python}" -m temporal_fabric.testing.docker_daemon
