"""A relay to Redis that can be slow."""

import socket
import threading
import time
from contextlib import suppress
from typing import Self


class Proxy:
    """Passes bytes on both ways; each piece of an answer is `delay_seconds` late.

    `loses_subscriptions`: what is for a subscriber never arrives, though its connection stays.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.delay_seconds = 0.0
        self.loses_subscriptions = False
        self.accepted = 0
        self._subscribers: set[socket.socket] = set()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listening, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(5)

    def _begin(self, work, *args) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                self.accepted += 1
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open += [near, far]
                self._begin(self._relay, near, far, False)
                self._begin(self._relay, far, near, True)

    def _relay(self, source: socket.socket, target: socket.socket, is_late: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if is_late and self.delay_seconds:
                    time.sleep(self.delay_seconds)
                if b"SUBSCRIBE" in data:
                    self._subscribers.add(source)
                if not (self.loses_subscriptions and target in self._subscribers):
                    target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)
