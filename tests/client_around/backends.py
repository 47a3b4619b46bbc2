"""An HTTP backend in a thread: it answers what it is told to, and counts."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Backend(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.served = 200, 0
        self.silent = threading.Event()  # set: a request is taken and not answered
        self.ended = threading.Event()

    def handle_error(self, *_: object) -> None:
        """Says nothing: whoever has timed out hangs up, and is meant to."""

    @property
    def port(self) -> int:
        return self.server_port

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    @property
    def breaker(self) -> str:
        """The name that is derived for it, in the namespace `default`."""
        return f"default/127.0.0.1-{self.port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Backend

    def do_GET(self) -> None:
        self.server.served += 1
        if self.server.silent.is_set():
            self.server.ended.wait(30)
            return
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/charge")
        else:
            self.send_response(self.server.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def backend() -> Iterator[Backend]:
    with Backend() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join()
