"""Child processes that never outlive us, and the ports they listen on.

A child leads a session of its own: Ctrl-C in a terminal reaches us and not it, so we stop things in order. The price
is that nobody else would end it, hence `_launcher.py`: however we end, SIGKILL included, the kernel (Linux) or a
watcher (elsewhere) ends the child. Linux ties that to the *thread* that started the child, hence `starter`.
"""

import atexit
import os
import random
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.starter import Child, submit

LAUNCHER = Path(__file__).with_name("_launcher.py")
KERNEL_TIES = sys.platform == "linux"
# Below every system's range for outgoing connections (Linux from 32768, macOS from 49152): nothing but another
# listener takes such a port, so a server that is down for a moment finds its own port free again.
PORTS = range(20_000, 32_000)
ADDRESS_IN_USE = "ddress already in use"  # as etcd, kube-apiserver and redis-server all print it, but for the A


_claims: deque[socket.socket] = deque()  # the UDP ports of the same numbers, which nobody uses
_MOST_CLAIMS = 64


@atexit.register
def _release_claims() -> None:
    while _claims:
        _claims.popleft().close()


def free_port() -> int:
    """A port of 127.0.0.1 that is free now, and that no other process that asks here is given meanwhile.

    A process of another kind may be quicker: retry when binding it fails.
    """
    while True:
        address = ("127.0.0.1", random.SystemRandom().choice(PORTS))
        claim = socket.socket(type=socket.SOCK_DGRAM)
        try:
            claim.bind(address)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        if len(_claims) > _MOST_CLAIMS:
            _claims.popleft().close()
        return address[1]


class Process:
    """A running child. `log` receives its standard output and error; `pid` is the program itself."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        tie: Literal["kernel", "watcher"] = "kernel" if KERNEL_TIES else "watcher",
    ) -> None:
        program, *arguments = map(str, command)
        if not os.access(program, os.X_OK):
            raise LocalError(f"{program} is not there, or not executable")
        self.name = Path(program).name
        self.log = log
        self._lifeline: int | None = None
        said, started = os.pipe()
        theirs = [started]
        if tie == "watcher":
            end, self._lifeline = os.pipe()
            theirs.append(end)
        launch = [sys.executable, "-I", "-S", LAUNCHER, os.getpid(), *theirs, *(() if tie == "watcher" else "-")]

        def start() -> Child:
            with log.open("ab") as output:
                return subprocess.Popen(
                    [*map(str, launch), program, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=env,
                    cwd=cwd,
                    start_new_session=True,
                    pass_fds=theirs,
                )

        future = submit(start)
        try:
            self._popen = future.result()
            while theirs:
                os.close(theirs.pop())
            # Until its end of the pipe closes, the child is still the launcher, and perhaps not tied to us yet.
            complaint = os.read(said, 1000).decode()
        except BaseException:
            # Ctrl-C in just this moment: nobody would ever hold the child that is being born
            with suppress(Exception):
                self._popen = future.result(timeout=10)
                self.kill()
            raise
        finally:
            for descriptor in (said, *theirs):
                os.close(descriptor)
        if complaint:
            self.kill()
            raise LocalError(f"{program} did not start: {complaint}")

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative: ended by that signal."""
        return self._popen.poll()

    @property
    def alive(self) -> bool:
        return self.returncode is None

    def wait(self, timeout_seconds: float | None = None) -> int:
        """The return code; raises `subprocess.TimeoutExpired`."""
        return self._popen.wait(timeout_seconds)

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """SIGTERM, then SIGKILL after `timeout_seconds`; back when it is gone. A paused process is woken to hear it."""
        try:
            self._send(signal.SIGTERM)
            self._send(signal.SIGCONT)
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout_seconds)
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to it and to what it forked; back when it is gone."""
        self._send(signal.SIGKILL)
        self._popen.wait()
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    def pause(self) -> None:
        """SIGSTOP: its connections stay open and nothing answers."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def tail(self, lines: int = 20) -> str:
        """The last lines of the log."""
        return tail(self.log, lines)

    def obituary(self) -> str:
        """How it ended, with the last lines of its log; empty while it runs."""
        code = self.returncode
        if code is None:
            return ""
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        said = self.tail(10)
        return f"{self.name} ended by itself ({how})" + (f"; the end of its log:\n{said}" if said else "")

    def _send(self, number: signal.Signals) -> None:
        # The group's id is the child's, since it leads its session; while it is unreaped, the id is nobody else's.
        if self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a file; empty when there is none."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""
