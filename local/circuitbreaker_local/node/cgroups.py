"""The cgroup below which everything of a node is counted, in each hierarchy of the machine; it goes with the node.

Its name tells the node's temporary folder, and where that is. A cgroup outlives the processes in it, so what a killed
run left is known by a name whose folder is gone, or not locked any more: the `janitor` removes it, or else the next
start that keeps its folders in the same place.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from circuitbreaker_local.folders import PREFIX, held

MOUNT = Path("/sys/fs/cgroup")
REMOVAL_SECONDS = 10.0


def hierarchies() -> list[Path]:
    """Where cgroups are made: one folder on a machine of version 2, one for each controller on one of version 1."""
    if (MOUNT / "cgroup.controllers").exists():
        return [MOUNT]
    return [path for path in MOUNT.iterdir() if (path / "cgroup.procs").exists()]


def name_of(folder: Path) -> str:
    """Of the cgroup that goes with the temporary folder of a node."""
    return f"{folder.name}-{hashlib.sha256(os.fsencode(folder.parent)).hexdigest()[:8]}"


@contextmanager
def cgroup(folder: Path) -> Iterator[str]:
    """The path of a new cgroup, as the kubelet wants it; removed with all below it at the end."""
    sweep()
    name = name_of(folder)
    for hierarchy in hierarchies():
        (hierarchy / name).mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):  # version 1: empty ones let no process in
            if (hierarchy / file).exists():
                (hierarchy / name / file).write_text((hierarchy / file).read_text())
    try:
        yield f"/{name}"
    finally:
        remove(name)


def remove(name: str) -> None:
    """Back when it is gone; whatever was in it must be ending."""
    deadline = time.monotonic() + REMOVAL_SECONDS
    for hierarchy in hierarchies():
        while (hierarchy / name).exists() and time.monotonic() < deadline:
            for folder, _, _ in os.walk(hierarchy / name, topdown=False):
                with suppress(OSError):  # busy: a process in it has not quite ended
                    Path(folder).rmdir()
            if (hierarchy / name).exists():
                time.sleep(0.05)


def sweep() -> None:
    """Remove the cgroups of nodes that nobody holds any more, if their folders were where ours are."""
    place = name_of(Path(tempfile.gettempdir()) / f"{PREFIX}*")
    for name in {path.name for hierarchy in hierarchies() for path in hierarchy.glob(place)}:
        if name not in {name_of(path) for path in held()}:
            remove(name)
