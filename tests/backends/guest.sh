#!/bin/sh
# A virtual machine whose kernel has control groups of version 2 alone, for the tests of limits:
# Debian's QEMU, and Debian's kernel, which is fetched once and never installed. The processor is
# emulated, so any machine can have it.
set -u
sh "$(dirname "$0")/debian_package" qemu-system-x86_64 qemu-system-x86 || exit
"${PYTHON:-.venv/bin/python}" -m tests.backends.guest
