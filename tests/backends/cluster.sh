#!/bin/sh
# A Temporal cluster on PostgreSQL, for the tests of a team's server: Debian's PostgreSQL, and
# the server built once from the pinned Go modules. The build takes some minutes on a new machine.
set -u
if ! ls /usr/lib/postgresql/*/bin/postgres > /dev/null 2>&1; then
    # Debian's own database is neither made nor started: each test run has one of its own.
    if [ "$(id -u)" -eq 0 ] && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        mkdir -p /etc/postgresql-common
        echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf
    fi
    sh "$(dirname "$0")/debian_package" postgres postgresql || exit
fi
"${PYTHON:-.venv/bin/python}" -m temporal_fabric.testing.cluster
