"""kube-apiserver, etcd and kubectl: where they come from.

They are ordinary Go programs, so a machine needs no container runtime and no image registry to have them:
`local/controlplane/go.mod` names them as tools. `$KUBEBUILDER_ASSETS`, the folder that `setup-envtest` and others
fill, goes first when it is set; then the cache, which a build fills once (`go_programs`).
"""

import os
from dataclasses import dataclass
from pathlib import Path

from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.go_programs import GoProgram, GoPrograms
from circuitbreaker_local.progress import Report

CONTROL_PLANE = GoPrograms(
    name="controlplane",
    folder=Path(__file__).resolve().parents[1] / "controlplane",
    version_of="k8s.io/kubernetes",
    programs={
        "etcd": GoProgram("go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3", "1 minute"),
        "kubectl": GoProgram("k8s.io/kubernetes/cmd/kubectl", "k8s.io/kubernetes", "2 minutes"),
        "kube-apiserver": GoProgram("k8s.io/kubernetes/cmd/kube-apiserver", "k8s.io/kubernetes", "4 minutes"),
    },
    advice="To do without: point KUBEBUILDER_ASSETS at a folder with kube-apiserver, etcd and kubectl.",
)


@dataclass(frozen=True)
class ControlPlaneBinaries:
    """Three programs that exist."""

    kube_apiserver: Path
    etcd: Path
    kubectl: Path

    @classmethod
    def in_folder(cls, folder: Path) -> "ControlPlaneBinaries":
        """Raises LocalError that names what `folder` lacks."""
        missing = [name for name in CONTROL_PLANE.programs if not os.access(folder / name, os.X_OK)]
        if missing:
            raise LocalError(f"{folder} has no {' and no '.join(missing)} that can be executed")
        return cls(*(folder / name for name in ("kube-apiserver", "etcd", "kubectl")))


def ready_made() -> ControlPlaneBinaries | None:
    """Those in `$KUBEBUILDER_ASSETS`, when it is set. Raises LocalError."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        return None
    try:
        return ControlPlaneBinaries.in_folder(Path(assets).absolute())
    except LocalError as error:
        raise LocalError(f"KUBEBUILDER_ASSETS: {error}; unset it to have them built") from None


def control_plane_binaries(report: Report | None = None) -> ControlPlaneBinaries:
    """The programs of a control plane; builds them when this machine has none. Raises LocalError."""
    return ready_made() or ControlPlaneBinaries.in_folder(CONTROL_PLANE.find(report or Report()))
