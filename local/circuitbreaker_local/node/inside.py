"""What runs inside the namespaces: the node, and a command that has it to itself.

    python -m circuitbreaker_local.node.inside ARCHIVE... -- COMMAND...

Started by `__main__`, which has made everything that needs the machine's own network before. It is a process of its own
since making namespaces takes one with a single thread.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.folders import TemporaryFolder
from circuitbreaker_local.node.cgroups import cgroup
from circuitbreaker_local.node.enclosure import enclosed
from circuitbreaker_local.node.janitor import janitor
from circuitbreaker_local.node.node import Node
from circuitbreaker_local.node.programs import NodeBinaries, node_binaries
from circuitbreaker_local.node.surroundings import furnish
from circuitbreaker_local.progress import Report


def confined(work: Callable[[Path, str], int]) -> int:
    """Calls `work` in namespaces, with a folder and the path of a cgroup that go with them, however it ends.

    To be called by a process with one thread. The return value of `work`, or 128 and a signal's number.
    """
    with janitor() as tell, TemporaryFolder() as folder, cgroup(folder.path) as path:
        tell(folder.path)
        return enclosed(lambda: work(folder.path, path))


def _work(folder: Path, cgroup_path: str, binaries: NodeBinaries, archives: list[Path], command: list[str]) -> int:
    temporary = folder / "tmp"  # whatever is made inside goes with the node's folder
    temporary.mkdir()
    temporary.chmod(0o1777)
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    furnish(folder)
    node = Node(binaries, folder, cgroup_path)
    try:
        with Report().step("starting a node"):
            node.start(archives)
        variables = {
            "KUBECONFIG": str(node.plane.kubeconfig),
            "CB_NODE": str(folder),
            "PATH": f"{binaries.control_plane.kubectl.parent}{os.pathsep}{os.environ['PATH']}",
        }
        return _attend(subprocess.Popen(command, env=os.environ | variables))
    finally:
        if keep := os.environ.get("CB_NODE_LOGS"):
            for name, log in node.logs().items():
                Path(keep).mkdir(parents=True, exist_ok=True)
                (Path(keep) / f"{name}.log").write_bytes(log.read_bytes())
        node.stop()


def _attend(child: "subprocess.Popen[bytes]") -> int:
    def end(_number: int, _: FrameType | None) -> None:
        child.send_signal(signal.SIGINT)  # what every command answers by clearing away

    signal.signal(signal.SIGINT, lambda *_: None)  # the terminal has told it already
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    while True:
        with suppress(subprocess.TimeoutExpired):
            code = child.wait(1.0)
            return code if code >= 0 else 128 - code


def main() -> int:
    """The exit status of the command; 1 when there was no node."""
    split = sys.argv.index("--")
    try:
        archives, command = [Path(each) for each in sys.argv[1:split]], sys.argv[split + 1 :]
        binaries = node_binaries(Report())
        return confined(lambda folder, cgroup_path: _work(folder, cgroup_path, binaries, archives, command))
    except LocalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
