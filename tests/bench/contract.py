"""Throughput of the functions beside HINCRBY, in one run: 50 connections, 16 calls in a pipeline; and bytes a breaker.

Requests are made beforehand, so that the program that measures costs little; server and program share the machine.
"""

import selectors
import socket
import statistics
from collections.abc import Callable
from time import perf_counter

import redis

from circuitbreaker_contract import library
from circuitbreaker_local.redis_server import RedisServer

CONNECTIONS, PIPELINE, ROUNDS, RUNS = 50, 16, 40, 3
POLICY = (
    '{"failureThreshold":5,"recoveryTimeoutMs":3600000,"halfOpenLimit":2,"successThreshold":1,"probeTimeoutMs":5000'
)
POLICIES = {
    "consecutive failures": POLICY + "}",
    "count window": POLICY + ',"windowCalls":1000,"failureRatePercent":50}',
    "time window": POLICY + ',"windowMs":60000,"failureRatePercent":50}',
}


def encoded(*words: object) -> bytes:
    parts = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def rate(port: int, request: Callable[[int, int], bytes]) -> float:
    """Calls a second; `request` makes the n-th call of a connection."""
    requests = [
        [
            b"".join(request(c, n * PIPELINE + i) for i in range(PIPELINE)) + encoded("ECHO", f"@{n}@")
            for n in range(ROUNDS)
        ]
        for c in range(CONNECTIONS)
    ]
    done = [0] * CONNECTIONS
    began = perf_counter()
    with selectors.DefaultSelector() as selector:
        for number in range(CONNECTIONS):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(connection, selectors.EVENT_READ, number)
            connection.sendall(requests[number][0])
        left = CONNECTIONS
        while left:
            for key, _ in selector.select():
                number, connection = key.data, key.fileobj
                if not connection.recv(1 << 17).endswith(b"@%d@\r\n" % done[number]):
                    continue
                done[number] += 1
                if done[number] < ROUNDS:
                    connection.sendall(requests[number][done[number]])
                else:
                    selector.unregister(connection)
                    connection.close()
                    left -= 1
    return CONNECTIONS * PIPELINE * ROUNDS / (perf_counter() - began)


def define(client: redis.Redis, name: str, policy: str) -> tuple[str, int]:
    """The breaker's key and incarnation."""
    key = f"cb:{{bench/{name}}}"
    return key, client.fcall("cb_configure", 1, key, "bench", name, 1, policy, 1)[1]


def throughput(server: RedisServer, client: redis.Redis) -> None:
    """Rates of each run, and the median ratio to HINCRBY of the same run."""
    keys = {name: define(client, name.replace(" ", "-"), policy) for name, policy in POLICIES.items()}
    refusing, order = define(client, "refusing", POLICIES["consecutive failures"])
    client.fcall("cb_report", 1, refusing, "bench", 1, order, 1, "F9")
    ratios: dict[str, list[float]] = {}
    for run in range(RUNS):
        beside = rate(server.port, lambda _c, _n: encoded("HINCRBY", "bench", "n", 1))
        for name, (key, incarnation) in keys.items():

            def report(c: int, n: int, key: str = key, incarnation: int = incarnation, run: int = run) -> bytes:
                batch = "S2 F1" if n % 7 == 0 else "S3"
                return encoded("FCALL", "cb_report", 1, key, f"client-{run}-{c}", n + 1, incarnation, 1, batch)

            ratios.setdefault(f"cb_report, {name}", []).append(beside / rate(server.port, report))
        refused = rate(server.port, lambda c, n: encoded("FCALL", "cb_acquire", 1, refusing, f"client-{c}", f"l-{n}"))
        ratios.setdefault("cb_acquire, refused", []).append(beside / refused)
        print(f"HINCRBY {beside:,.0f}/s   cb_acquire refused {refused:,.0f}/s", flush=True)
    for name, found in ratios.items():
        spread = f"{min(found):.1f} to {max(found):.1f}"
        print(f"{name:<36} 1/{statistics.median(found):.1f} of HINCRBY in the same run ({spread})", flush=True)


def memory(client: redis.Redis) -> None:
    """Bytes over all keys of a breaker, its window full."""
    full = {
        "10,000 calls": (POLICY + ',"windowCalls":10000,"failureRatePercent":100}', "S1 M1 " * 128),
        "1 h": (POLICY + ',"windowMs":3600000,"failureRatePercent":100}', "S100"),
    }
    for name, (policy, batch) in full.items():
        key, incarnation = define(client, "memory-" + name.replace(" ", "-").replace(",", ""), policy)
        for seq in range(1, 45):
            client.fcall("cb_report", 1, key, "bench", seq, incarnation, 1, batch.strip())
        used = sum(client.memory_usage(each) for each in client.scan_iter(f"{key}*"))
        print(f"a breaker with a window of {name:<20} {used:,} bytes", flush=True)


def bench(server: RedisServer) -> None:
    """The contract's figures."""
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        client.function_load(library.source(), replace=True)
        throughput(server, client)
        memory(client)
