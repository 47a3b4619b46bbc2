"""A whole Kubernetes of one node, inside namespaces that `enclosure` made and `surroundings` furnished."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.folders import PREFIX
from circuitbreaker_local.node.containers import Containers
from circuitbreaker_local.node.programs import NodeBinaries
from circuitbreaker_local.node.surroundings import ADDRESS, POD_NETWORK
from circuitbreaker_local.processes import Process
from circuitbreaker_local.waiting import wait_until

NAME = "node1"
READY_SECONDS = 120.0
KUBELET_USER, PROXY, SCHEDULER = f"system:node:{NAME}", "system:kube-proxy", "system:kube-scheduler"
CONTROLLERS, NAMES = "system:kube-controller-manager", "coredns"
USERS = {
    KUBELET_USER: ["system:nodes"],
    PROXY: [],
    SCHEDULER: [],
    CONTROLLERS: [],
    NAMES: ["system:masters"],  # there is no shipped role for it, and it is a process of ours
}
COREFILE = """\
.:53 {{
    bind {address}
    errors
    kubernetes cluster.local {{
        kubeconfig {kubeconfig}
        ttl 5
    }}
}}
"""


class Node:
    """The control plane, containerd, kubelet, kube-proxy and DNS. `folder` holds all that they write."""

    def __init__(self, binaries: NodeBinaries, folder: Path, cgroup: str) -> None:
        self.binaries, self.folder, self._cgroup = binaries, folder, cgroup
        self.containers = Containers(folder)
        self.plane = ControlPlane(
            binaries.control_plane,
            users=USERS,
            address=ADDRESS,
            service_accounts=True,
            api_server_arguments=[
                "--endpoint-reconciler-type=lease",
                "--authorization-mode=Node",
                "--kubelet-preferred-address-types=InternalIP",
            ],
        )
        self._parts: list[Process] = []

    def start(self, images: Sequence[Path]) -> Self:
        """Back when the node is Ready, with `images` in it. Raises LocalError with the end of a log."""
        self.containers.start()
        self.plane.start()
        self._start("kube-controller-manager", self.binaries.controller_manager, *self._controllers())
        self._start("kubelet", self.binaries.kubelet, *self._kubelet())
        self._start("kube-scheduler", self.binaries.scheduler, *self._as(SCHEDULER), "--leader-elect=false")
        self._start("kube-proxy", self.binaries.proxy, *self._proxy())
        self._start("coredns", self.binaries.coredns, *self._names())
        self.containers.load(images)
        wait_until(
            lambda: self._ended() != "" or self._is_ready(), timeout_seconds=READY_SECONDS, what=f"{NAME} to be Ready"
        )
        if ended := self._ended():
            raise LocalError(ended)
        return self

    def stop(self) -> None:
        """End what runs as a process; containers end with their namespace."""
        for part in reversed(self._parts):
            part.kill()
        self.plane.stop()

    def logs(self) -> dict[str, Path]:
        """Of each part, by name."""
        folders = [self.folder, *(self.folder / "tmp").glob(f"{PREFIX}*")]  # the second is the control plane's
        return {path.stem: path for folder in folders for path in folder.glob("*.log")}

    def _is_ready(self) -> bool:
        path = "{.status.conditions[?(@.type=='Ready')].status}"
        try:
            return self.plane.kubectl("get", "node", NAME, f"--output=jsonpath={path}") == "True"
        except LocalError:
            return False

    def _ended(self) -> str:
        return "; ".join(part.obituary() for part in self._parts if not part.alive)

    def _start(self, name: str, binary: Path, *flags: str) -> None:
        self._parts.append(Process([binary, *flags], log=self.folder / f"{name}.log"))

    def _as(self, user: str) -> list[str]:
        return [f"--kubeconfig={self.plane.kubeconfig_of(user)}"]

    @property
    def _certificates(self) -> Path:
        return self.plane.folder / "certs"

    def _controllers(self) -> list[str]:
        return [
            *self._as(CONTROLLERS),
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self._certificates / 'apiserver.key'}",
            f"--root-ca-file={self._certificates / 'apiserver.crt'}",
            f"--cert-dir={self.folder / 'kube-controller-manager'}",
        ]

    def _kubelet(self) -> list[str]:
        # JSON, which is YAML. Nobody but what is inside reaches it, so it asks nobody who may.
        configuration = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self._cgroup,
            "failSwapOn": False,
            "clusterDNS": [ADDRESS],
            "clusterDomain": "cluster.local",
            "containerRuntimeEndpoint": f"unix://{self.containers.socket}",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "imageGCHighThresholdPercent": 100,  # images cannot be fetched again
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "podLogsDir": str(self.folder / "pods"),
            "shutdownGracePeriod": "0s",
        }
        path = self.folder / "kubelet.json"
        path.write_text(json.dumps(configuration, indent=2))
        return [
            *self._as(KUBELET_USER),
            f"--config={path}",
            f"--root-dir={self.folder / 'kubelet'}",
            f"--cert-dir={self.folder / 'kubelet.certificates'}",
            f"--hostname-override={NAME}",
            f"--node-ip={ADDRESS}",
        ]

    def _proxy(self) -> list[str]:
        return [
            *self._as(PROXY),
            "--proxy-mode=iptables",
            f"--cluster-cidr={POD_NETWORK}",
            f"--hostname-override={NAME}",
            # The machine's tables of connections are as long as they are.
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
        ]

    def _names(self) -> list[str]:
        path = self.folder / "Corefile"
        path.write_text(COREFILE.format(address=ADDRESS, kubeconfig=self.plane.kubeconfig_of(NAMES)))
        return [f"-conf={path}"]
