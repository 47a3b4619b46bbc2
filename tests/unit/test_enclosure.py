"""However what is around a node ends, nothing is left: no process, mount, cgroup, network or folder."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from circuitbreaker_local.folders import PREFIX
from circuitbreaker_local.node.cgroups import hierarchies, name_of, remove
from circuitbreaker_local.waiting import wait_until


def able() -> bool:
    """Root alone does not do in a sandbox."""
    if sys.platform != "linux" or os.getuid() != 0 or not all(os.access(each, os.W_OK) for each in hierarchies()):
        return False
    words = ["unshare", "--mount", "--net", "--ipc", "--pid", "--fork", "true"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not able(), reason="no namespaces and cgroups may be made here")
# Stands in for a node: a mount, a process in a session of its own and in the cgroup. It says what to look for outside.
PROGRAM = """
import os, signal, subprocess, sys
from pathlib import Path
from circuitbreaker_local.node.cgroups import hierarchies
from circuitbreaker_local.node.inside import confined

signal.signal(signal.SIGINT, signal.default_int_handler)  # below a shell's & it is ignored

def work(folder, cgroup):
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    (folder / "mounted").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder / "mounted"], check=True)
    (folder / "mounted" / "file").touch()
    child = subprocess.Popen(["sleep", sys.argv[1]], start_new_session=True)
    for hierarchy in hierarchies():
        below = hierarchy / cgroup.strip("/") / "pod"
        below.mkdir()
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (below / file).exists():
                (below / file).write_text((below.parent / file).read_text())
        (below / "cgroup.procs").write_text(str(child.pid))
    print(folder, os.readlink("/proc/self/ns/net"), flush=True)
    {end}

sys.exit(confined(work))
"""
FOREVER = "signal.pause()"


def running(words: str) -> list[int]:
    """Processes of the whole machine that were started with these words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if words in path.read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def cgroups(folder: Path) -> list[Path]:
    return [path for hierarchy in hierarchies() for path in hierarchy.glob(f"{folder.name}*")]


def networks() -> set[str]:
    """The network namespaces that some process is in."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found.add(str(path.readlink()))
        except OSError:
            continue
    return found


def confined(tmp_path: Path, end: str) -> tuple["subprocess.Popen[str]", str, Path, str]:
    """The process, what its child is known by, its folder and its network."""
    mark = f"{os.getpid()}.{int.from_bytes(os.urandom(3), 'big')}"
    program = PROGRAM.replace("{end}", end)
    process = subprocess.Popen(
        [sys.executable, "-c", program, mark],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    assert process.stdout is not None
    folder, network = process.stdout.readline().split()
    return process, mark, Path(folder), network


def nothing_is_left(mark: str, folder: Path, network: str) -> None:
    wait_until(lambda: not running(mark), timeout_seconds=20, what="the processes to end")
    wait_until(lambda: cgroups(folder) == [], timeout_seconds=20, what="the cgroups to go")
    wait_until(lambda: not folder.exists(), timeout_seconds=20, what="the folder to go")
    wait_until(lambda: network not in networks(), timeout_seconds=20, what="the network to go")
    assert folder.name not in Path("/proc/self/mountinfo").read_text()
    assert list(folder.parent.glob(f"{PREFIX}*")) == []


WAYS: dict[str, tuple[Callable[["subprocess.Popen[str]"], object], int]] = {
    "Ctrl-C": (lambda process: os.killpg(process.pid, signal.SIGINT), 130),
    "SIGTERM": (lambda process: process.send_signal(signal.SIGTERM), 143),
    "SIGKILL": (lambda process: process.send_signal(signal.SIGKILL), -9),
    "SIGKILL to all of its group": (lambda process: os.killpg(process.pid, signal.SIGKILL), -9),
}


@pytest.mark.parametrize(("send", "status"), WAYS.values(), ids=WAYS)
def test_nothing_is_left(tmp_path: Path, send: Callable[["subprocess.Popen[str]"], object], status: int) -> None:
    """By whatever the runner ends."""
    process, mark, folder, network = confined(tmp_path, FOREVER)
    with process:
        assert running(f"sleep {mark}")
        assert len(cgroups(folder)) == len(hierarchies())
        assert network in networks() - {str(Path("/proc/self/ns/net").readlink())}
        assert list((folder / "mounted").iterdir()) == []  # the mount is seen inside alone
        send(process)
        assert process.wait(20) == status
        nothing_is_left(mark, folder, network)


def test_the_work_ends_by_itself(tmp_path: Path) -> None:
    """Its status is ours; what it left running ends with it, and all is gone by then."""
    process, mark, folder, network = confined(tmp_path, "return 7")
    with process:
        assert process.wait(20) == 7
        assert not running(mark)
        assert not folder.exists()
        nothing_is_left(mark, folder, network)


def test_trying_leaves_us_where_we_are() -> None:
    program = "import os; from circuitbreaker_local.node.enclosure import must_be_allowed; must_be_allowed()"
    run = [sys.executable, "-c", f"{program}; print(os.readlink('/proc/self/ns/net'))"]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() == str(
        Path("/proc/self/ns/net").readlink()
    )


def test_a_start_clears_away_what_was_left(tmp_path: Path) -> None:
    """Should the janitor be killed too. Nodes with folders elsewhere are not ours to judge."""
    stale = tmp_path / f"{PREFIX}stale"
    stale.mkdir()
    elsewhere = Path("/elsewhere") / f"{PREFIX}{tmp_path.name}"
    for hierarchy in hierarchies():
        (hierarchy / name_of(stale)).mkdir()
        (hierarchy / name_of(elsewhere)).mkdir()
    try:
        process, mark, folder, network = confined(tmp_path, "return 0")
        with process:
            assert process.wait(20) == 0
        assert cgroups(stale) == []
        assert len(cgroups(elsewhere)) == len(hierarchies())
        nothing_is_left(mark, folder, network)
    finally:
        for folder in (stale, elsewhere):
            remove(name_of(folder))
