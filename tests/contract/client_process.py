"""One client process of test_concurrency: asks, calls, reports at random, and notes what it sent and what came back.

    python client_process.py PORT NAME BREAKERS NOTES SEED

NOTES is a file with two lines a call, written as they happen, so that SIGKILL loses none:

    > nanoseconds breaker function id order detail    about to be sent; id is a lease or a seq
    < nanoseconds state generation decision lease_ms  the reply to it

Ends at SIGTERM, between two calls. Imports nothing but the contract: fifty of these start.
"""

import os
import random
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from circuitbreaker_contract import protocol
from circuitbreaker_contract.keys import BreakerKey, Keys
from circuitbreaker_contract.protocol import Call
from circuitbreaker_contract.state import Decision, Outcome, Standing, State

SENT_AGAIN = 0.05  # share of calls whose reply is taken for lost
PROBE_OUTCOMES = "SSSSSSSSSSSSSSSSFLMII"


class Redis:
    """The wire, and no more of it than replies of functions need."""

    def __init__(self, port: int) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.replies = self.connection.makefile("rb")

    def execute(self, *words: str | int) -> Any:
        parts = [str(word).encode() for word in words]
        self.connection.sendall(
            b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        )
        return self._reply()

    def _reply(self) -> Any:
        line = self.replies.readline()
        kind, rest = line[:1], line[1:-2]
        match kind:
            case b"*":
                return [self._reply() for _ in range(int(rest))]
            case b"$":
                return self.replies.read(int(rest) + 2)[:-2]
            case b":":
                return int(rest)
            case _:
                raise ConnectionError(line.decode() or "closed")


class Client:
    """What a client process knows of the breakers, and what it does next."""

    def __init__(self, redis: Redis, name: str, breakers: int, notes: int, seed: int) -> None:
        self.redis, self.name, self.notes = redis, name, notes
        self.random = random.Random(seed)
        self.keys = [Keys().breaker(BreakerKey("demo", f"breaker-{number}")) for number in range(breakers)]
        self.known: list[Standing | None] = [None] * breakers
        self.not_before = [0.0] * breakers
        self.leases = 0
        self.seqs = [0] * breakers

    def step(self) -> None:
        now = time.monotonic()
        free = [number for number, at in enumerate(self.not_before) if at <= now]
        if not free:
            time.sleep(min(0.02, min(self.not_before) - now))
            return
        number = self.random.choice(free)
        known = self.known[number]
        if known is not None and known.state is State.CLOSED:
            self.report(number, known.order[:2])
        else:
            self.ask(number)
        time.sleep(self.random.random() * 0.004)

    def ask(self, number: int) -> None:
        self.leases += 1
        lease = f"{self.name}.{self.leases}"
        call = protocol.acquire(self.keys[number], client=self.name, lease=lease)
        began = time.monotonic()
        permit = self.send(number, "acquire", lease, (0, 0), "-", call)
        if self.random.random() < SENT_AGAIN:
            first, permit = permit, self.send(number, "acquire", lease, (0, 0), "-", call)
            lasts = first.standing.order == permit.standing.order
            lasts = lasts and (time.monotonic() - began) * 1_000 < first.lease_ms  # else it may have ended by itself
            if lasts and first.decision is Decision.PROBE:
                assert permit.decision is Decision.PROBE, f"{lease} was a probe"
                assert permit.lease_ms <= first.lease_ms, f"{lease} was renewed"
        self.learn(number, permit.standing)
        match permit.decision:
            case Decision.PROBE:
                self.probe(number, lease, permit.standing.order[:2])
            case Decision.PERMITTED:
                self.report(number, permit.standing.order[:2])
            case Decision.NOT_PERMITTED:
                assert permit.standing.retry_after_ms > 0
                self.not_before[number] = time.monotonic() + permit.standing.retry_after_ms / 1000

    def probe(self, number: int, lease: str, order: tuple[int, int]) -> None:
        chance = self.random.random()
        if chance < 0.03:
            return  # it forgets: the lease has to end by itself
        if chance < 0.06:
            time.sleep(0.13)  # longer than the lease
        elif chance < 0.2:
            time.sleep(0.02)
        outcome = Outcome(self.random.choice(PROBE_OUTCOMES))
        call = protocol.settle(self.keys[number], client=self.name, lease=lease, order=order, outcome=outcome)
        for _ in range(2 if self.random.random() < SENT_AGAIN else 1):
            self.learn(number, self.send(number, "settle", lease, order, outcome.value, call))

    def report(self, number: int, order: tuple[int, int]) -> None:
        self.seqs[number] += 1
        seq = self.seqs[number]
        if self.random.random() < 0.05:
            order = (order[0], self.random.choice([0, max(0, order[1] - 1), max(0, order[1] - 2)]))
        runs = [(self.random.choice("SSLFFFFMIN"), self.random.randint(1, 3)) for _ in range(self.random.randint(1, 3))]
        call = protocol.report(self.keys[number], client=self.name, seq=seq, order=order, batch=runs)
        for _ in range(2 if self.random.random() < SENT_AGAIN else 1):
            standing = self.send(number, "report", seq, order, protocol.encode_batch(runs).replace(" ", ","), call)
            self.learn(number, standing)

    def learn(self, number: int, standing: Standing) -> None:
        known = self.known[number]
        if known is None or standing.order >= known.order:
            self.known[number] = standing

    def send(
        self, number: int, function: str, name: str | int, order: tuple[int, int], detail: str, call: Call[Any]
    ) -> Any:
        self.note(f"> {time.monotonic_ns()} {number} {function} {name} {order[1]} {detail}\n")
        answer = call.read(self.redis.execute(*call.command()))
        standing = answer if isinstance(answer, Standing) else answer.standing
        decision, lease_ms = ("-", 0) if answer is standing else (answer.decision.value, answer.lease_ms)
        self.note(f"< {time.monotonic_ns()} {standing.state.value} {standing.order.generation} {decision} {lease_ms}\n")
        return answer

    def note(self, line: str) -> None:
        os.write(self.notes, line.encode())


def main() -> NoReturn:
    port, name, breakers, notes, seed = sys.argv[1:]
    ending = False

    def end(*_: object) -> None:
        nonlocal ending
        ending = True

    signal.signal(signal.SIGTERM, end)
    descriptor = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    client = Client(Redis(int(port)), name, int(breakers), descriptor, int(seed))
    while not ending:
        client.step()
    sys.exit(0)


if __name__ == "__main__":
    main()
