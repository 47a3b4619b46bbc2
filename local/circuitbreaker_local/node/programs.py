"""The programs of a node, beside those of the control plane: ordinary Go programs too."""

from dataclasses import dataclass
from pathlib import Path

from circuitbreaker_local.binaries import CONTROL_PLANE, ControlPlaneBinaries, ready_made
from circuitbreaker_local.go_programs import GoProgram, GoPrograms, find_all
from circuitbreaker_local.progress import Report

LOCAL = Path(__file__).resolve().parents[2]
KUBERNETES = "k8s.io/kubernetes"
ADVICE = "Without a node: make test, or make kind-demo where Docker is."
# A module of its own beside the control plane's, so that who runs `make test` alone need not build these.
NODE = GoPrograms(
    name="node",
    folder=LOCAL / "node",
    version_of=KUBERNETES,
    programs={
        "kube-controller-manager": GoProgram(f"{KUBERNETES}/cmd/kube-controller-manager", KUBERNETES, "1 to 3 minutes"),
        "kubelet": GoProgram(f"{KUBERNETES}/cmd/kubelet", KUBERNETES, "30 seconds"),
        "kube-scheduler": GoProgram(f"{KUBERNETES}/cmd/kube-scheduler", KUBERNETES, "10 seconds"),
        "kube-proxy": GoProgram(f"{KUBERNETES}/cmd/kube-proxy", KUBERNETES, "10 seconds"),
        "pause": GoProgram("./pause", KUBERNETES, "1 second"),
    },
    advice=ADVICE,
)
COREDNS = GoPrograms(
    name="coredns",
    folder=LOCAL / "coredns",
    version_of="github.com/coredns/coredns",
    programs={"coredns": GoProgram(".", "github.com/coredns/coredns", "2 minutes")},
    advice=ADVICE,
)


@dataclass(frozen=True)
class NodeBinaries:
    """Everything that runs on a node and is not the system's."""

    control_plane: ControlPlaneBinaries
    controller_manager: Path
    scheduler: Path
    kubelet: Path
    proxy: Path
    pause: Path
    coredns: Path


def node_binaries(report: Report) -> NodeBinaries:
    """Builds what this machine has not got. Raises LocalError."""
    given = ready_made()
    *built, node, coredns = find_all([NODE, COREDNS] if given else [CONTROL_PLANE, NODE, COREDNS], report)
    return NodeBinaries(
        given or ControlPlaneBinaries.in_folder(*built),
        controller_manager=node / "kube-controller-manager",
        scheduler=node / "kube-scheduler",
        kubelet=node / "kubelet",
        proxy=node / "kube-proxy",
        pause=node / "pause",
        coredns=coredns / "coredns",
    )
