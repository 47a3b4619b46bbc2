"""An HTTP backend whose mood can be set: `POST /mood/ok`, `/mood/failing` or `/mood/slow`; `GET /charge` shows it."""

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SLOW_SECONDS = 0.4
MOODS = ("ok", "failing", "slow")


class Backend(ThreadingHTTPServer):
    mood = "ok"
    served = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Backend

    def do_GET(self) -> None:
        if self.path == "/served":
            self._answer(200, str(self.server.served))
            return
        self.server.served += 1
        if self.server.mood == "slow":
            time.sleep(SLOW_SECONDS)  # the work of a backend that is warming up
        self._answer(503 if self.server.mood == "failing" else 200, self.server.mood)

    def do_POST(self) -> None:
        mood = self.path.removeprefix("/mood/")
        if mood in MOODS:
            self.server.mood = mood
        self._answer(200 if mood in MOODS else 404, mood)

    def log_message(self, *_: object) -> None:
        """Says nothing: the services tell the story."""

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    with Backend(("127.0.0.1", int(sys.argv[1])), Handler) as backend:
        backend.serve_forever()
