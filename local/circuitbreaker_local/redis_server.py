"""A real Redis for a test or the demo, on a port of its own, that keeps nothing unless asked to."""

import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.folders import TemporaryFolder
from circuitbreaker_local.processes import ADDRESS_IN_USE, Process, free_port
from circuitbreaker_local.redis_binary import find_redis_server
from circuitbreaker_local.waiting import wait_until

__all__ = ["RedisServer", "find_redis_server"]

START_SECONDS = 15.0
ATTEMPTS = 5


class RedisServer:
    """A redis-server on 127.0.0.1. Not started until `start`, or until entered as a context manager.

    `persistent`: every write is in an append-only file, so `restart(empty=False)` finds its data again. `arguments`
    are given to the server as they are, last: `["--maxmemory", "10mb"]`.
    """

    def __init__(
        self,
        binary: Path,
        *,
        port: int | None = None,
        password: str | None = None,
        persistent: bool = False,
        arguments: Sequence[str] = (),
    ) -> None:
        self._binary = binary
        self._wanted_port = port
        self._port = 0
        self.password = password
        self._persistent = persistent
        self._arguments = tuple(arguments)
        self._folder: TemporaryFolder | None = None
        self._process: Process | None = None

    @property
    def port(self) -> int:
        """The same from the first start to `stop`, through every restart."""
        return self._port

    @property
    def url(self) -> str:
        user = f":{self.password}@" if self.password else ""
        return f"redis://{user}127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def process(self) -> Process:
        return self._running

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.alive

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def folder(self) -> Path:
        if self._folder is None:
            raise LocalError("this redis-server was not started")
        return self._folder.path

    def start(self) -> Self:
        """Back when it answers; after `kill`, on the port it had and with the data it kept. Raises LocalError."""
        self._folder = self._folder or TemporaryFolder()
        try:
            for attempt in range(1, ATTEMPTS + 1):
                new = self._wanted_port or self._port or free_port()
                try:
                    self._start(new)
                except LocalError as error:
                    if ADDRESS_IN_USE not in str(error) or attempt == ATTEMPTS:
                        raise
                else:
                    self._port = new
                    break
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self, port: int) -> None:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        self.log.unlink(missing_ok=True)
        options = {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": str(data),
            "save": "",
            "appendonly": "yes" if self._persistent else "no",
            "appendfsync": "no",  # what a killed process has written survives it; only the machine's end would not
            "loglevel": "warning",
        }
        if self.password:
            options["requirepass"] = self.password
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        process = self._process = Process([self._binary, *words, *self._arguments], log=self.log)
        wait_until(
            lambda: not process.alive or _answers(port, process.pid, self.password),
            timeout_seconds=START_SECONDS,
            what="redis-server to answer",
        )
        if not process.alive:
            raise LocalError(f"redis-server ended at once:\n{process.tail()}")

    def restart(self, *, empty: bool) -> None:
        """Kill it and start it anew on the same port, with nothing in it or with what it had kept."""
        self.kill()
        if empty:
            shutil.rmtree(self.folder / "data")
        self.start()

    def kill(self) -> None:
        """SIGKILL; `start` brings it back."""
        self._running.kill()

    def pause(self) -> None:
        """It keeps its connections, accepts new ones, and answers none."""
        self._running.pause()

    def resume(self) -> None:
        self._running.resume()

    def stop(self) -> None:
        """End it and remove what it kept."""
        if self._process is not None:
            self._process.kill()  # there is nothing to save: its folder goes in the next line
            self._process = None
        if self._folder is not None:
            self._folder.close()
            self._folder = None
        self._port = 0

    @property
    def _running(self) -> Process:
        if self._process is None:
            raise LocalError("this redis-server was not started")
        return self._process

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _answers(port: int, pid: int, password: str | None) -> bool:
    """Whether the Redis at `port` is process `pid`, has read its data, and answers.

    The process is asked for, since a server of somebody else may have taken the port just before ours.
    """
    commands = [["AUTH", password]] if password else []
    commands += [["PING"], ["INFO", "server"], ["QUIT"]]
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(b"".join(map(_encoded, commands)))
            with connection.makefile("rb") as replies:
                said = replies.read()
    except OSError:
        return False
    return b"+PONG\r\n" in said and b"\r\nprocess_id:%d\r\n" % pid in said


def _encoded(words: list[str]) -> bytes:
    texts = [word.encode() for word in words]
    return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%s\r\n" % (len(text), text) for text in texts)
