"""containerd of a node: its configuration, how it starts, how images come in."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.node.packages import CNI_PLUGINS, CONTAINERD, program, search_path
from circuitbreaker_local.node.surroundings import BRIDGE, POD_NETWORK
from circuitbreaker_local.processes import Process, tail
from circuitbreaker_local.waiting import wait_until

PAUSE = "localhost/pause:1"
START_SECONDS = 60.0
IMPORT_SECONDS = 300.0

CONFIGURATION = """\
version = 2
root = "{folder}/containerd"
state = "{folder}/containerd.state"
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"
]

[grpc]
  address = "{folder}/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without CAP_SYS_RESOURCE nobody lowers a score, and runc would give up.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""
NETWORK = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": POD_NETWORK}]], "routes": [{"dst": "0.0.0.0/0"}]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


class Containers:
    """A running containerd, with everything of its own below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.socket = folder / "containerd.sock"
        self._process: Process | None = None

    def start(self) -> None:
        """Back when it answers. Raises LocalError with the end of its log."""
        text = CONFIGURATION.format(folder=self._folder, plugins=CNI_PLUGINS, pause=PAUSE)
        (self._folder / "containerd.toml").write_text(text)
        (self._folder / "cni").mkdir()
        (self._folder / "cni" / "pods.conflist").write_text(json.dumps(NETWORK))
        process = self._process = Process(
            [program(CONTAINERD), "--config", self._folder / "containerd.toml"],
            log=self._folder / "containerd.log",
            env=os.environ | {"PATH": search_path()},  # its shim is looked for there
        )
        wait_until(
            lambda: not process.alive or self._answers(), timeout_seconds=START_SECONDS, what="containerd to answer"
        )
        if not process.alive:
            raise LocalError(process.obituary())

    def load(self, archives: Iterable[Path]) -> None:
        """Bring images in, as `kind load` would."""
        for archive in archives:
            self._ctr("images", "import", str(archive), timeout_seconds=IMPORT_SECONDS)

    def _answers(self) -> bool:
        try:
            self._ctr("version", timeout_seconds=5.0)
        except LocalError:
            return False
        return True

    def _ctr(self, *words: str, timeout_seconds: float) -> None:
        log = self._folder / "ctr.log"
        log.unlink(missing_ok=True)
        command: list[str | Path] = [program("ctr"), f"--address={self.socket}", "--namespace=k8s.io", *words]
        with Process(command, log=log) as process:
            if process.wait(timeout_seconds) != 0:
                raise LocalError(f"ctr {' '.join(words)}: {tail(log)}")
