#!/bin/sh
# systemd-analyze, which checks the units in deploy/systemd; nothing is started.
set -u
if ! command -v systemd-analyze > /dev/null; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
        echo "there is no systemd-analyze, and no root with apt-get to install the package systemd"
        exit 75
    fi
    export DEBIAN_FRONTEND=noninteractive
    install="apt-get install -qq -y --no-install-recommends systemd"
    said=$($install 2>&1) || said=$({ apt-get update -qq && $install; } 2>&1) ||
        { echo "the package systemd cannot be installed: $said" | tail -3; exit 75; }
fi
systemd-analyze --version | head -1
