"""Configuration of the tests' Kubernetes: what each part is told.

One feature gate is set: by it a queue of the tests holds Jobs back, and no web server has to. What
is unusual has its reason: a test machine may lack the right to lower its OOM score, has no firewall
to be changed, and only one copy of the image.
"""

from __future__ import annotations

import json
from pathlib import Path

_NEVER = "1%"


def kubeconfig(server: str, authority: Path, token: str) -> str:
    """Return a client configuration with one context, as JSON, which is YAML too."""
    cluster = {"server": server}
    if server.startswith("https:"):
        cluster["certificate-authority"] = str(authority)
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "main",
            "clusters": [{"name": "main", "cluster": cluster}],
            "contexts": [{"name": "main", "context": {"cluster": "main", "user": "main"}}],
            "users": [{"name": "main", "user": {"token": token}}],
        }
    )


def containerd(folder: Path, pause: str) -> str:
    """Return the configuration of containerd."""
    # An overlay cannot lie on another one, as it would in a container.
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    kinds = {at: kind for _, at, kind, *_ in (line.split() for line in mounts)}
    at = next(str(path) for path in folder.parents if str(path) in kinds)
    snapshots = "native" if kinds[at] == "overlay" else "overlayfs"
    return f"""\
version = 2
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
oom_score = 0
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/{pause}"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshots}"
"""


def network(folder: Path, pods: str) -> str:
    """Return the network of the pods: one bridge in the node's namespace."""
    addresses = {
        "type": "host-local",
        "dataDir": str(folder / "cni" / "leases"),
        "ranges": [[{"subnet": pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "pods0", "isGateway": True, "ipam": addresses}
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]})


def kubelet(folder: Path, address: str) -> str:
    """Return the configuration of the kubelet; whoever reaches its address may ask it."""
    full = ("nodefs.available", "nodefs.inodesFree", "imagefs.available", "imagefs.inodesFree")
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": address,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "failSwapOn": False,
            "makeIPTablesUtilChains": False,
            "oomScoreAdj": 0,
            "readOnlyPort": 0,
            "healthzPort": 0,
            "podLogsDir": str(folder / "pod-logs"),
            "volumePluginDir": str(folder / "volume-plugins"),
            "evictionHard": {"memory.available": "50Mi", **dict.fromkeys(full, _NEVER)},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "nodeStatusUpdateFrequency": "2s",
            "resolvConf": "",
        }
    )


def flags(folder: Path, host: str, services: str, etcd: str, peers: str) -> dict[str, list[str]]:
    """Return the command line of each part, without its program."""
    pki = folder / "pki"
    here = ["--leader-elect=false", "--bind-address", "127.0.0.1", "--secure-port", "0"]
    control = ["--kubeconfig", str(folder / "control.kubeconfig"), *here]
    accounts = str(pki / "accounts.key")
    options = {
        "etcd": f"""--name one --data-dir {folder}/etcd --unsafe-no-fsync --log-level warn
            --listen-client-urls {etcd} --advertise-client-urls {etcd}
            --listen-peer-urls {peers} --initial-advertise-peer-urls {peers}
            --initial-cluster one={peers}""",
        "apiserver": f"""--etcd-servers {etcd} --cert-dir {pki} --token-auth-file {pki}/tokens.csv
            --bind-address {host} --advertise-address {host} --secure-port 6443
            --endpoint-reconciler-type none --service-cluster-ip-range {services}
            --authorization-mode Node,RBAC --anonymous-auth=false
            --kubelet-preferred-address-types InternalIP
            --service-account-issuer https://kubernetes.default.svc
            --service-account-key-file {accounts} --service-account-signing-key-file {accounts}
            --enable-priority-and-fairness=false --shutdown-delay-duration 0
            --runtime-config admissionregistration.k8s.io/v1beta1=true
            --feature-gates MutatingAdmissionPolicy=true""",
        "controllers": f"""--root-ca-file {pki}/apiserver.crt
            --service-account-private-key-file {accounts}
            --node-monitor-grace-period 12s --node-monitor-period 2s""",
        "scheduler": "",
        "kubelet": f"""--config {folder}/kubelet.yaml --kubeconfig {folder}/kubelet.kubeconfig
            --root-dir {folder}/kubelet --cert-dir {pki}/kubelet""",
    }
    found = {name: words.split() for name, words in options.items()}
    for name in ("controllers", "scheduler"):
        found[name] += control
    return found
