"""One process of a service that protects its calls with a shared breaker, by plain FCALLs: no library of ours.

This is the heart of a client in any language (contract/README.md): in Closed call and report in batches; in Open refuse
until the time that Redis gave has passed; then ask, and make the call only with a permit. It ends where Redis is silent
or has no such breaker; what a client does then, and what it hears, is in "How a client lives" there. To run it:

    REDIS_URL=redis://localhost:6379/0 python without_a_client.py service-1 'cb:{default/payments}' localhost:9000
"""

import http.client
import os
import sys
import time
import uuid
from itertools import groupby

import redis

CALLS_PER_SECOND = 20
FLUSH_SECONDS = 0.1


class Service:
    """Calls `backend` (host:port) under the breaker at `key`. Times are monotonic seconds."""

    def __init__(self, name: str, url: str, key: str, backend: str) -> None:
        self.redis = redis.Redis.from_url(url, decode_responses=True, socket_timeout=2, socket_connect_timeout=2)
        self.name, self.key, self.backend = name, key, backend
        self.client, self.seq = f"{name}-{uuid.uuid4().hex[:12]}", 0
        self.state, self.order, self.retry_at = "", (0, 0), 0.0
        self.outcomes: list[str] = []  # of one generation, in order
        self.flush_at = 0.0

    def run(self) -> None:
        """Calls until the process is ended."""
        self._ask()
        while True:
            self.one_call()
            if time.monotonic() >= self.flush_at:
                self.flush()
            time.sleep(1 / CALLS_PER_SECOND)  # the pace of its work

    def one_call(self) -> None:
        if self.state == "Closed":
            self.outcomes.append("S" if self._charge() else "F")
        elif time.monotonic() < self.retry_at:
            self.outcomes.append("N")  # refused here, without a round trip
        else:
            self.flush()
            self._probe()

    def flush(self) -> None:
        """Reports what has happened, run-length encoded: `S12 F3`."""
        self.flush_at = time.monotonic() + FLUSH_SECONDS
        if not self.outcomes:
            return
        batch = " ".join(f"{letter}{len(list(run))}" for letter, run in groupby(self.outcomes))
        self.outcomes.clear()
        self.seq += 1
        self._see(self.redis.fcall("cb_report", 1, self.key, self.client, self.seq, *self.order, batch))

    def _ask(self) -> tuple[str, str]:
        """The decision, and the lease that was asked for."""
        lease = uuid.uuid4().hex
        reply = self.redis.fcall("cb_acquire", 1, self.key, self.client, lease)
        self._see(reply)
        return str(reply[5]), lease

    def _probe(self) -> None:
        decision, lease = self._ask()
        if decision == "Probe":
            order = self.order
            outcome = "S" if self._charge() else "F"
            self._see(self.redis.fcall("cb_settle", 1, self.key, self.client, lease, *order, outcome))
        elif decision == "Permitted":
            self.outcomes.append("S" if self._charge() else "F")

    def _see(self, reply: list[str | int]) -> None:
        state, incarnation, generation, _, retry_after_ms = reply[:5]
        self.order, self.retry_at = (int(incarnation), int(generation)), time.monotonic() + int(retry_after_ms) / 1000
        if state != self.state:
            self.state = str(state)
            wait = f", refusing calls for {int(retry_after_ms) / 1000:.1f} s" if state == "Open" else ""
            print(f"{self.name}: the breaker is {state}{wait}", flush=True)

    def _charge(self) -> bool:
        connection = http.client.HTTPConnection(self.backend, timeout=2)
        try:
            connection.request("GET", "/charge")
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return False
        else:
            return answer.status < http.HTTPStatus.INTERNAL_SERVER_ERROR  # a 404 is an answer
        finally:
            connection.close()


if __name__ == "__main__":
    Service(sys.argv[1], os.environ["REDIS_URL"], sys.argv[2], sys.argv[3]).run()
