#!/bin/sh
# A Temporal cluster on PostgreSQL, for the tests of a team's server: Debian's PostgreSQL, and
# the server built once from the pinned Go modules. The build takes some minutes on a new machine.
set -u
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! command -v postgres > /dev/null && ! ls /usr/lib/postgresql/*/bin/postgres > /dev/null 2>&1; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
        echo "there is no PostgreSQL, and no root with apt-get to install the package postgresql"
        exit 75
    fi
    export DEBIAN_FRONTEND=noninteractive
    # Debian's own database is neither made nor started: each test run has one of its own.
    mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf
    install="apt-get install -qq -y --no-install-recommends -o Dpkg::Options::=--force-confold postgresql"
    $install > "$log" 2>&1 || { apt-get update -qq && $install; } > "$log" 2>&1 ||
        { echo "the package postgresql cannot be installed"; tail -3 "$log"; exit 75; }
fi
"${PYTHON:-.venv/bin/python}" -m temporal_fabric.testing.cluster
