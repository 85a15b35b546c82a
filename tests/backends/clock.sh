#!/bin/sh
# libfaketime, for the tests in which a worker's clock jumps.
set -u
sh "$(dirname "$0")/debian_package" faketime faketime || exit
echo "libfaketime with $(command -v faketime)"
