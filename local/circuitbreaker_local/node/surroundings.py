"""What a node finds inside its namespaces: mounts of its own, a network of its own, and no way to leave traces.

Programs of a node write below /run, /var/lib and /var/log, and the kubelet sets a few of the kernel's tunables, which
are the whole machine's. So these folders are covered by writable layers in the node's folder, and the tunables by files
that hold what the kubelet wants to see. Nothing of this is visible outside.
"""

import subprocess
from pathlib import Path

from circuitbreaker_local.errors import LocalError

ADDRESS = "10.244.0.1"  # of the node, on the bridge of the pods
POD_NETWORK = "10.244.0.0/24"
BRIDGE = "cni0"
COVERED = ("/run", "/var/lib", "/var/log")
TUNABLES = {  # k8s.io/component-helpers/node/util/sysctl
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def furnish(folder: Path) -> None:
    """Mounts and network, for a process that has namespaces of its own for them. Raises LocalError."""
    _run("mount", "--make-rprivate", "/")
    _run("mount", "-t", "proc", "proc", "/proc")
    for path in COVERED:
        upper, work = (folder / kind / path.strip("/").replace("/", "-") for kind in ("covers", "covers.work"))
        upper.mkdir(parents=True)
        work.mkdir(parents=True)
        _run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={path},upperdir={upper},workdir={work}", path)
    shields = folder / "tunables"
    shields.mkdir()
    for name, value in TUNABLES.items():
        shield = shields / name.replace("/", ".")
        shield.write_text(f"{value}\n")
        if (Path("/proc/sys") / name).exists():
            _run("mount", "--bind", str(shield), f"/proc/sys/{name}")
    # Names of Services are known to whoever is inside.
    names = folder / "resolv.conf"
    names.write_text(f"nameserver {ADDRESS}\nsearch svc.cluster.local cluster.local\n")
    _run("mount", "--bind", str(names), str(Path("/etc/resolv.conf").resolve()))
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", BRIDGE, "type", "bridge")
    _run("ip", "address", "add", f"{ADDRESS}/24", "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")
    # Addresses of Services lead nowhere before they are translated, but a packet without a route is never looked at.
    _run("ip", "route", "add", "default", "dev", BRIDGE)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LocalError(f"{' '.join(command)}: {done.stderr.strip()}")
