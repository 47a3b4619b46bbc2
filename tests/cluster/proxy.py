"""A TCP connection that can be cut without anybody being told, as a network does it, or watched."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self


class Proxy:
    """Forwards 127.0.0.1:`port` to another port. While cut, connections are accepted and nothing passes.

    `asked` is told what the near side sends before it goes on; an OSError of it ends that connection.
    """

    def __init__(self, target: int, *, asked: Callable[[bytes], None] = lambda _: None) -> None:
        self._target = target
        self._asked = asked
        self._passes = threading.Event()
        self._passes.set()
        self._closed = False
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        self._passes.clear()

    def mend(self) -> None:
        self._passes.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._passes.set()
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            self._open += [near, far]
            for source, sink, told in ((near, far, self._asked), (far, near, lambda _: None)):
                threading.Thread(target=self._pump, args=(source, sink, told), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, told: Callable[[bytes], None]) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self._passes.wait()
                told(data)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
