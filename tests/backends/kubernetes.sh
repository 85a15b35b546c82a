#!/bin/sh
# A real Kubernetes of one node, for the tests of its adapter: Debian's containerd, and the rest
# built once from Go modules. The build takes some minutes on a new machine, and says so.
set -u
folder=$(dirname "$0")
if [ "$(id -u)" -ne 0 ]; then
    echo "a node needs root"
    exit 75
fi
sh "$folder/debian_package" containerd containerd || exit
sh "$folder/debian_package" ip iproute2 || exit
sh "$folder/debian_package" /usr/lib/cni/bridge containernetworking-plugins || exit
[ -e /proc/self/fd/3 ] || exec 3>&2
binary=$("${PYTHON:-.venv/bin/python}" -m tests.backends.kubernetes_build) || {
    code=$?
    echo "$binary"
    exit $code
}
echo "$("$binary" kubelet --version) at $binary"
