#!/bin/sh
# systemd-analyze, which checks the units in deploy/systemd; nothing is started.
set -u
sh "$(dirname "$0")/debian_package" systemd-analyze systemd || exit
systemd-analyze --version | head -1
