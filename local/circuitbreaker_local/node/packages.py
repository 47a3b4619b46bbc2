"""What a node needs of the system: Debian's packages, installed where we may.

Not so containerd: where systemd runs, its package starts a service that would stay. It is unpacked into our cache.
"""

import os
import shutil
import sys
from pathlib import Path

from circuitbreaker_local.cache import cache_folder
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.packages import alone, fetch, manage
from circuitbreaker_local.progress import Report

CNI_PLUGINS = Path("/usr/lib/cni")
DEBIAN_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
CONTAINERD = "containerd"
CONTAINERD_PROGRAMS = (CONTAINERD, "containerd-shim-runc-v2", "ctr")
# package -> a file or a program of it that tells whether it is there
PACKAGES = {
    "buildah": "buildah",
    "conntrack": "conntrack",
    CONTAINERD: CONTAINERD,
    "containernetworking-plugins": str(CNI_PLUGINS / "bridge"),
    "debian-archive-keyring": str(DEBIAN_KEYS),
    "debootstrap": "debootstrap",
    "gpgv": "gpgv",
    "iproute2": "ip",
    "iptables": "iptables",
    "mount": "mount",
    "runc": "runc",
    "util-linux": "unshare",
}


def must_be_root() -> None:
    """Raises LocalError for anybody else, and elsewhere than on Linux."""
    if sys.platform != "linux" or os.getuid() != 0:
        raise LocalError(
            "a node takes Linux and root: it makes namespaces, mounts and cgroups. Elsewhere: make kind-demo"
        )


def ensure_packages(report: Report) -> None:
    """Back when every program is there. Raises LocalError with one line that says what is missing."""
    if not _missing():
        return
    with alone(report):
        missing = _missing()
        if missing and not shutil.which("apt-get"):
            raise LocalError(f"a node needs {', '.join(missing)}: install them (the names are Debian's packages)")
        if to_install := [package for package in missing if package != CONTAINERD]:
            with report.step(f"installing {', '.join(to_install)} with apt-get (once)") as step:
                manage("apt-get", to_install, step)
        if CONTAINERD in missing:
            with report.step("fetching Debian's containerd (once)") as step:
                fetch(CONTAINERD, CONTAINERD_PROGRAMS, _unpacked(), step)
    if missing := _missing():
        raise LocalError(f"a node needs {', '.join(missing)}, which apt-get did not bring")


def program(name: str) -> Path:
    """Where a program that a node needs is. Raises LocalError."""
    found = _found(name)
    if not found:
        raise LocalError(f"there is no {name}")
    return found


def _missing() -> list[str]:
    return [package for package, name in PACKAGES.items() if not _found(name)]


def _found(name: str) -> Path | None:
    if Path(name).is_absolute():
        return Path(name) if Path(name).exists() else None
    found = shutil.which(name, path=search_path())
    return Path(found) if found else None


def search_path() -> str:
    """PATH, with programs of an administrator, which are not even on every root's, and those that we unpacked."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", str(_unpacked())])


def _unpacked() -> Path:
    return cache_folder() / CONTAINERD
