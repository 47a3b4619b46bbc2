"""kube-apiserver, etcd and kubectl: where they come from.

They are ordinary Go programs, so a machine needs no container runtime and no image registry to have them:
`local/controlplane/go.mod` names them as tools, and the module proxy with go.sum decides what is in them. In order:

1. `$KUBEBUILDER_ASSETS`, the folder that `setup-envtest` and others fill, when it is set;
2. the cache, in a folder whose name covers the versions, the system and every byte of go.mod and go.sum;
3. a build, once, into a folder beside the cache's, renamed when all three are there. What is in the cache is whole.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from circuitbreaker_local.cache import cache_folder, exclusive
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.processes import Process, tail
from circuitbreaker_local.progress import Report
from circuitbreaker_local.toolchain import find_go, go_environment, numbers

MODULE = Path(__file__).resolve().parents[1] / "controlplane"
TICK_SECONDS = 0.5
# file name -> (package, module that gives the version, time of a first build, downloads included)
PROGRAMS = {
    "etcd": ("go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3", "1 minute"),
    "kubectl": ("k8s.io/kubernetes/cmd/kubectl", "k8s.io/kubernetes", "2 minutes"),
    "kube-apiserver": ("k8s.io/kubernetes/cmd/kube-apiserver", "k8s.io/kubernetes", "4 minutes"),
}


@dataclass(frozen=True)
class ControlPlaneBinaries:
    """Three programs that exist."""

    kube_apiserver: Path
    etcd: Path
    kubectl: Path

    @classmethod
    def in_folder(cls, folder: Path) -> "ControlPlaneBinaries":
        """Raises LocalError that names what `folder` lacks."""
        missing = [name for name in PROGRAMS if not os.access(folder / name, os.X_OK)]
        if missing:
            raise LocalError(f"{folder} has no {' and no '.join(missing)} that can be executed")
        return cls(*(folder / name for name in ("kube-apiserver", "etcd", "kubectl")))


def control_plane_binaries(report: Report | None = None) -> ControlPlaneBinaries:
    """The programs of a control plane; builds them when this machine has none. Raises LocalError."""
    report = report or Report()
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets:
        try:
            return ControlPlaneBinaries.in_folder(Path(assets).absolute())
        except LocalError as error:
            raise LocalError(f"KUBEBUILDER_ASSETS: {error}; unset it to have them built") from None
    home = cache_folder() / "controlplane" / _key()
    if not home.exists():
        with exclusive(home.parent, report):
            if not home.exists():  # somebody else may have built while we waited
                _build(home, report)
    return ControlPlaneBinaries.in_folder(home)


def required(module: str) -> str:
    """The version that go.mod requires of `module`; of `go`, the language's."""
    found = re.search(rf"^\s*{re.escape(module)} (\S+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    if not found:
        raise LocalError(f"{MODULE / 'go.mod'} does not require {module}")
    return found.group(1)


def _system() -> tuple[str, str]:
    machine = platform.machine().lower()
    return sys.platform, {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _key() -> str:
    sums = hashlib.sha256((MODULE / "go.mod").read_bytes() + (MODULE / "go.sum").read_bytes()).hexdigest()[:12]
    return "-".join((required("k8s.io/kubernetes"), *_system(), sums))


def _build(home: Path, report: Report) -> None:
    for left in home.parent.glob(".building-*"):  # whoever began these was killed: we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    go = find_go(numbers(required("go")), report)
    caches = home.parent / ".go-caches"  # an interrupted build leaves them, for the next one to continue
    environment = go_environment() | _own_caches(go, caches)
    scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=home.parent))
    try:
        done = scratch / "bin"
        done.mkdir()
        for name, (package, module, duration) in PROGRAMS.items():
            version = required(module)
            with report.step(f"building {name} {version} (once, about {duration} on 2 cores)") as step:
                build: list[str | Path] = [go, "build", "-mod=readonly", "-trimpath", "-o", done / name]
                flags = f"-s -w -X k8s.io/component-base/version.gitVersion={version}"
                _run([*build, "-ldflags", flags, package], scratch, environment, step.tick)
        done.rename(home)
        shutil.rmtree(caches, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _own_caches(go: Path, folder: Path) -> dict[str, str]:
    """Go's caches grow by 3 GB: those that this machine does not have yet are ours, below `folder`, for the build."""
    ours = {}
    for name in ("GOCACHE", "GOMODCACHE"):
        asked = subprocess.run([go, "env", name], capture_output=True, text=True, check=False, env=go_environment())
        theirs = Path(asked.stdout.strip())
        if name not in os.environ and not (theirs.is_absolute() and theirs.is_dir() and any(theirs.iterdir())):
            ours[name] = str(folder / name.lower())
    if "GOMODCACHE" in ours:
        ours["GOFLAGS"] = "-modcacherw"  # else nobody could remove it
    return ours


def _run(command: list[str | Path], scratch: Path, environment: Mapping[str, str], tick: Callable[[], None]) -> None:
    log = scratch / "log"
    # GOTMPDIR: what the compiler leaves behind when it is interrupted goes away with the rest
    environment = {**environment, "GOTMPDIR": str(scratch)}
    with Process(command, log=log, env=environment, cwd=MODULE) as compiler:
        while True:
            try:
                returncode = compiler.wait(TICK_SECONDS)
            except subprocess.TimeoutExpired:
                tick()
            else:
                break
    if returncode != 0:
        raise LocalError(
            f"{tail(log)}\nThe build failed; above are its last lines. It needs the Go module proxy (GOPROXY), 2 GB of "
            "memory and 4 GB of disk, and continues where it stopped. To do without: point KUBEBUILDER_ASSETS at a "
            "folder with kube-apiserver, etcd and kubectl."
        )
