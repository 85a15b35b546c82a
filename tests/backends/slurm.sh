#!/bin/sh
# A Slurm node, a login node and slurmrestd, for the tests of the Slurm backend: Debian's slurm-wlm,
# slurmrestd, munge and openssh-server, and podman with crun for its containers. Only installed here; each test run
# has a site of its own, with images of its own, which ends with it.
set -u
policy=/usr/sbin/policy-rc.d
if [ "$(id -u)" -eq 0 ] && [ ! -e "$policy" ]; then
    # Debian's own daemons are not started: no machine gets an sshd by running tests.
    printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
for pair in sbatch:slurm-client slurmctld:slurmctld slurmd:slurmd slurmrestd:slurmrestd \
    munged:munge sshd:openssh-server ssh-keygen:openssh-client python3:python3 \
    podman:podman crun:crun catatonit:catatonit; do
    PATH=/usr/sbin:/sbin:/usr/bin:/bin sh "$(dirname "$0")/debian_package" \
        "${pair%%:*}" "${pair#*:}" || exit
done
# Tokens are a plugin of its own, which slurmrestd only recommends.
jwt=auth_jwt.so
[ -n "$(find /usr/lib -name "$jwt" 2> /dev/null | head -1)" ] || \
    PATH=/usr/sbin:/sbin:/usr/bin:/bin sh "$(dirname "$0")/debian_package" \
        "$jwt" slurm-wlm-jwt-plugin || exit
python=${PYTHON:-.venv/bin/python}
slurm=$("$python" -m temporal_fabric.testing.slurm_site) || { code=$?; echo "$slurm"; exit "$code"; }
podman=$("$python" -m temporal_fabric.testing.podman_store) || { code=$?; echo "$podman"; exit "$code"; }
echo "$slurm; $podman"
