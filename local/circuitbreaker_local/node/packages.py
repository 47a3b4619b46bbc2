"""What a node needs of the system: Debian's packages, installed where we may."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.progress import Report

CNI_PLUGINS = Path("/usr/lib/cni")
# package -> a program of it that tells whether it is there
PACKAGES = {
    "buildah": "buildah",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "containernetworking-plugins": str(CNI_PLUGINS / "bridge"),
    "debootstrap": "debootstrap",
    "iproute2": "ip",
    "iptables": "iptables",
    "mount": "mount",
    "runc": "runc",
    "util-linux": "unshare",
}


def ensure_packages(report: Report) -> None:
    """Back when every program is there. Raises LocalError with one line that says what is missing."""
    if sys.platform != "linux" or os.getuid() != 0:
        raise LocalError(
            "a node takes Linux and root: it makes namespaces, mounts and cgroups. Elsewhere: make kind-demo"
        )
    missing = _missing()
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise LocalError(f"a node needs {', '.join(missing)}: install them (the names are Debian's packages)")
    with report.step(f"installing {', '.join(missing)} with apt-get (once)"):
        for words in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *missing]):
            done = subprocess.run(
                ["apt-get", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                # containerd is ours to start, inside; the system's own need not run
                env=os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"},
                check=False,
            )
            if done.returncode != 0 and words[0] == "install":
                end = "\n".join(done.stdout.splitlines()[-5:])
                raise LocalError(f"{end}\napt-get could not install {', '.join(missing)}")
    if missing := _missing():
        raise LocalError(f"a node needs {', '.join(missing)}, which apt-get did not bring")


def _missing() -> list[str]:
    # Programs of an administrator are not on everybody's PATH, not even on every root's.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    return [package for package, program in PACKAGES.items() if not shutil.which(program, path=path)]
