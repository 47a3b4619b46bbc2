"""Children end when they should, whatever becomes of the process that started them."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from circuitbreaker_local import folders, processes
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.inspection import is_running
from circuitbreaker_local.processes import KERNEL_TIES, Process, free_port
from circuitbreaker_local.waiting import wait_until

SLEEP = shutil.which("sleep") or "sleep"
SH = "/bin/sh"
TIES = ["watcher", pytest.param("kernel", marks=pytest.mark.skipif(not KERNEL_TIES, reason="Linux alone has it"))]
PARENT = """
import signal, sys, threading
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # below nohup it is ignored, and that is inherited
from pathlib import Path
from circuitbreaker_local.inspection import is_running
from circuitbreaker_local.processes import Process
from circuitbreaker_local.folders import TemporaryFolder
folder = TemporaryFolder()
child = Process([sys.argv[1], "600"], log=folder.path / "log", tie=sys.argv[2])
print(child.pid, folder.path, flush=True)
threading.Event().wait()
"""


def gone(pid: int) -> bool:
    return not is_running(pid)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files that nobody else sweeps."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture(params=TIES)
def parent(request: pytest.FixtureRequest, temporary: Path) -> Iterator[tuple[subprocess.Popen[str], int, Path]]:
    """A process, the child it has started, and its temporary folder."""
    command = [sys.executable, "-c", PARENT, SLEEP, request.param]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        pid, folder = process.stdout.readline().split()
        yield process, int(pid), Path(folder)
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_child_dies_with_its_parent(parent: tuple[subprocess.Popen[str], int, Path], number: int) -> None:
    """However the parent ends, its child ends too."""
    process, pid, _ = parent
    assert not gone(pid)
    process.send_signal(number)
    wait_until(lambda: gone(pid), timeout_seconds=10, what="the child to end")


def test_a_paused_child_dies_with_its_parent(parent: tuple[subprocess.Popen[str], int, Path]) -> None:
    """A child that is stopped by a signal ends too."""
    process, pid, _ = parent
    os.kill(pid, signal.SIGSTOP)
    process.kill()
    wait_until(lambda: gone(pid), timeout_seconds=10, what="the child to end")


def test_interrupt_of_the_terminal_does_not_reach_a_child(parent: tuple[subprocess.Popen[str], int, Path]) -> None:
    """A child is in a process group and a session of its own."""
    process, pid, _ = parent
    assert os.getpgid(pid) == os.getsid(pid) == pid != os.getpgid(process.pid)


def test_the_next_start_removes_the_folder_of_a_killed_owner(
    parent: tuple[subprocess.Popen[str], int, Path],
) -> None:
    """A folder stays while its owner lives and goes when another folder is made afterwards."""
    process, _, folder = parent
    folders.sweep()
    assert folder.is_dir()
    process.kill()
    process.wait()
    assert folder.is_dir()
    with folders.TemporaryFolder() as other:
        assert not folder.exists()
        assert other.path.is_dir()
    assert not other.path.exists()


def test_sweep_follows_no_link(temporary: Path) -> None:
    """A symbolic link with our prefix, and what it points to, are left alone."""
    (temporary / "precious").mkdir()
    (temporary / "precious" / "file").touch()
    link = temporary / f"{folders.PREFIX}link"
    link.symlink_to(temporary / "precious")
    folders.sweep()
    assert (link / "file").exists()


@pytest.mark.parametrize("tie", TIES)
def test_a_child_outlives_the_thread_that_started_it(tmp_path: Path, tie: str) -> None:
    """Children are tied to the process, not to one of its threads."""
    children: list[Process] = []
    thread = threading.Thread(target=lambda: children.append(Process([SLEEP, "600"], log=tmp_path / "log", tie=tie)))  # type: ignore[arg-type]
    thread.start()
    thread.join()
    (child,) = children
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.3)
    child.stop()
    assert child.returncode == -signal.SIGTERM


@pytest.mark.parametrize("tie", TIES)
def test_output_environment_folder_and_return_code(tmp_path: Path, tie: str) -> None:
    """A child runs as told, in its own process id, and its output is in the log."""
    child = Process(
        [SH, "-c", "echo $$ $WORD; pwd >&2; exit 3"],
        log=tmp_path / "log",
        env={"WORD": "hello"},
        cwd=tmp_path,
        tie=tie,  # type: ignore[arg-type]
    )
    assert child.wait(10) == 3
    assert child.tail() == f"{child.pid} hello\n{tmp_path.resolve()}"
    assert child.tail(1) == f"{tmp_path.resolve()}"
    child.stop()


def test_a_paused_child_hears_stop(tmp_path: Path) -> None:
    """SIGTERM ends a paused child; SIGKILL is not needed."""
    child = Process([SLEEP, "600"], log=tmp_path / "log")
    child.pause()
    child.stop(timeout_seconds=10)
    assert child.returncode == -signal.SIGTERM


def test_a_deaf_child_is_killed(tmp_path: Path) -> None:
    """A child that ignores SIGTERM ends by SIGKILL, together with what it forked."""
    script = f"trap '' TERM; {SLEEP} 600 & echo $!; wait; wait"
    child = Process([SH, "-c", script], log=tmp_path / "log")
    wait_until(lambda: child.tail() != "", timeout_seconds=10, what="its first line")
    forked = int(child.tail())
    child.stop(timeout_seconds=0.1)
    assert child.returncode == -signal.SIGKILL
    wait_until(lambda: gone(forked), timeout_seconds=10, what="its own child to end")


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A missing program is an error at once."""
    with pytest.raises(LocalError, match="/no/such/program is not there"):
        Process(["/no/such/program"], log=tmp_path / "log")


@pytest.mark.parametrize("tie", TIES)
def test_a_program_that_cannot_run_says_why(tmp_path: Path, tie: str) -> None:
    """A file that is executable and no program is an error at once, not a child that ends."""
    (tmp_path / "program").write_bytes(b"\x7fELF nonsense")
    (tmp_path / "program").chmod(0o755)
    with pytest.raises(LocalError, match=r"program did not start: .*Exec format error"):
        Process([tmp_path / "program"], log=tmp_path / "log", tie=tie)  # type: ignore[arg-type]


def test_an_obituary_says_how_it_ended(tmp_path: Path) -> None:
    """Nothing while it runs; then the name, the signal or the exit status, and the last lines."""
    child = Process([SLEEP, "600"], log=tmp_path / "quiet")
    assert child.obituary() == ""
    child.kill()
    assert child.obituary() == "sleep ended by itself (signal 9)"
    child = Process([SH, "-c", "echo bye; exit 3"], log=tmp_path / "log")
    child.wait(10)
    assert child.obituary() == "sh ended by itself (exit status 3); the end of its log:\nbye"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_end_of_a_terminal_clears_away_like_an_interrupt(number: int, temporary: Path) -> None:
    """A second signal does not cut the clearing away short."""
    script = f"""
import os, signal
signal.signal({int(number)}, signal.SIG_DFL)
from circuitbreaker_local import interrupts
from circuitbreaker_local.folders import TemporaryFolder
interrupts.listen()
folder = TemporaryFolder()
try:
    os.kill(os.getpid(), {int(number)})
except KeyboardInterrupt:
    os.kill(os.getpid(), {int(number)})
    folder.close()
    print("cleared")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "cleared\n"
    assert not [*temporary.glob(f"{folders.PREFIX}*")]


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """A child that came and went leaves as many descriptors as there were."""
    Process([SH, "-c", ":"], log=tmp_path / "log", tie="watcher").stop()
    before = len([*Path("/dev/fd").iterdir()])
    for _ in range(3):
        Process([SH, "-c", ":"], log=tmp_path / "log", tie="watcher").stop()
    assert len([*Path("/dev/fd").iterdir()]) == before


def test_a_port_is_given_to_one_process_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the choice and the server's start nobody listens there."""
    first = free_port() // 64 * 64
    monkeypatch.setattr(processes, "PORTS", range(first, first + 64))
    program = f"from circuitbreaker_local import processes as p; p.PORTS = range({first}, {first + 64})"
    with subprocess.Popen(
        [sys.executable, "-c", f"{program}; print(*(p.free_port() for _ in range(24)), flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        theirs = {int(word) for word in other.stdout.readline().split()}
        ours = {free_port() for _ in range(24)}
        other.communicate("\n")
    assert (len(theirs), len(ours), theirs & ours) == (24, 24, set())


def test_free_ports_are_free_and_differ() -> None:
    """Ports come from below the range of outgoing connections, at random."""
    ports = {free_port() for _ in range(20)}
    assert len(ports) > 10
    assert all(20_000 <= port < 32_000 for port in ports)
