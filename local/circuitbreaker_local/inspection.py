"""What the system's table of processes says: for tests that look whether anything was left behind."""

import subprocess
from pathlib import Path

TABLE = Path("/proc")


def is_running(pid: int) -> bool:
    """Whether a process has not ended. One that only waits for its parent, or init, to take notice has."""
    return _processes().get(pid, (0, "Z"))[1] not in {"Z", "X"}


def children_of(pid: int) -> set[int]:
    """The ids of the running processes that `pid` has started."""
    return {child for child, (parent, state) in _processes().items() if parent == pid and state not in {"Z", "X"}}


def _processes() -> dict[int, tuple[int, str]]:
    """Id -> (id of the parent, first letter of the state)."""
    if (TABLE / "self" / "stat").exists():  # Linux, where a small image may have no `ps`
        found = {}
        for stat in TABLE.glob("[0-9]*/stat"):
            try:
                pid, _, rest = stat.read_text(errors="replace").partition(" (")
            except OSError:  # it has just ended
                continue
            state, parent = rest.rpartition(") ")[2].split()[:2]  # a program's name may hold any character
            found[int(pid)] = (int(parent), state)
        return found
    said = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    return {int(pid): (int(parent), state[0]) for pid, parent, state in (line.split() for line in said.splitlines())}
