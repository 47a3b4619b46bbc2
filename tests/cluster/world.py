"""A namespace on the real API server, a real Redis, operators as real processes, clients that speak the contract."""

import os
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import kubernetes
import redis

from circuitbreaker_contract import protocol
from circuitbreaker_contract.errors import ContractError
from circuitbreaker_contract.keys import BreakerKey, Keys
from circuitbreaker_contract.protocol import Call
from circuitbreaker_contract.state import Outcome, Permit, Snapshot, Standing, State
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.processes import Process, free_port
from circuitbreaker_local.redis_server import RedisServer
from circuitbreaker_local.waiting import wait_until

T = TypeVar("T")
API = ("circuitbreaker.dev", "v1alpha1")
PLURAL = "circuitbreakers"


class Fleet:
    """Client processes of one breaker, by their names."""

    def __init__(self, client: "redis.Redis", key: str) -> None:
        self.redis, self.key, self.seqs = client, key, Counter[str]()

    def call(self, call: Call[T]) -> T:
        try:
            return call.read(self.redis.execute_command(*call.command()))
        except redis.ResponseError as error:
            raise ContractError.from_reply(str(error)) or error from error

    def observe(self, history: int = 0) -> Snapshot:
        return self.call(protocol.observe(self.key, history=history))

    def report(self, *runs: tuple[str, int], client: str = "a") -> Standing:
        self.seqs[client] += 1
        order = self.observe().order[:2]
        return self.call(protocol.report(self.key, client=client, seq=self.seqs[client], order=order, batch=runs))

    def open(self) -> Standing:
        """Failures until it opens."""
        standing = self.report(("F", self.observe().policy.failure_threshold))
        assert standing.state is State.OPEN
        return standing

    def acquire(self, lease: str) -> Permit:
        return self.call(protocol.acquire(self.key, client="a", lease=lease))

    def settle(self, lease: str, outcome: Outcome) -> Standing:
        order = self.observe().order[:2]
        return self.call(protocol.settle(self.key, client="a", lease=lease, order=order, outcome=outcome))

    def recover(self) -> None:
        """Probes, one after the other, until it is Closed; it has to be HalfOpen or due."""
        for number in range(self.observe().policy.success_threshold):
            lease = f"lease-{os.urandom(6).hex()}-{number}"
            self.acquire(lease)
            standing = self.settle(lease, Outcome.SUCCESS)
        assert standing.state is State.CLOSED


class OperatorProcess:
    """`circuitbreaker-operator run`, as a user starts it."""

    def __init__(self, process: Process, port: int) -> None:
        self.process, self.port = process, port

    @property
    def log(self) -> str:
        return self.process.log.read_text(encoding="utf-8")

    def get(self, path: str) -> tuple[int, str]:
        """(HTTP status, body); (0, "") when nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    @property
    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def wait_ready(self) -> "OperatorProcess":
        try:
            wait_until(
                lambda: self.ready or not self.process.alive, timeout_seconds=30, what="the operator to be ready"
            )
        except Exception as error:
            raise AssertionError(f"not ready: {self.get('/readyz')}\n{self.process.tail(60)}") from error
        assert self.process.alive, self.process.tail(60)
        return self

    def metric(self, line: str) -> float | None:
        """The value of the series written like this; None when it is not there."""
        return self.metrics((line,)).get(line)

    def metrics(self, lines: Sequence[str]) -> dict[str, float]:
        """The same of several in one scrape, which is never held as a whole: that of many breakers is large."""
        found = {}
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            for raw in answer:
                series, _, value = raw.decode().rpartition(" ")
                if series in lines:
                    found[series] = float(value)
        return found


def traceback_in(log: Path) -> str:
    """The first traceback, with what stands around it; "" when there is none."""
    before, trace, after = log.read_text(encoding="utf-8", errors="replace").partition("Traceback")
    return f"{before[-1_000:]}{trace}{after[:5_000]}" if trace else ""


class World:
    """What a test has to itself: a namespace, a Redis, and whatever operators it starts."""

    def __init__(self, plane: ControlPlane, server: RedisServer, folder: Path) -> None:
        self.plane, self.server, self.folder = plane, server, folder
        self.namespaces: list[str] = []
        self.namespace = self.new_namespace()
        self.api = kubernetes.config.new_client_from_config(str(plane.kubeconfig))
        self.objects = kubernetes.client.CustomObjectsApi(self.api)
        self.core = kubernetes.client.CoreV1Api(self.api)
        self.redis = redis.Redis.from_url(server.url, decode_responses=True)
        self.keys = Keys()
        self.credentials = plane.kubeconfig  # of the operators
        self._started = 0

    def close(self) -> None:
        for namespace in self.namespaces:
            self.objects.delete_collection_namespaced_custom_object(*API, namespace, PLURAL)
        self.api.close()
        self.redis.close()

    def new_namespace(self) -> str:
        self.namespaces.append(self.plane.create_namespace())
        return self.namespaces[-1]

    # -- resources

    def create(
        self, name: str, *, namespace: str | None = None, annotations: dict[str, str] | None = None, **spec: Any
    ) -> dict[str, Any]:
        body = {
            "apiVersion": "/".join(API),
            "kind": "CircuitBreaker",
            "metadata": {"name": name, "annotations": annotations or {}},
            "spec": spec,
        }
        return self.objects.create_namespaced_custom_object(*API, namespace or self.namespace, PLURAL, body)

    def patch(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return self.objects.patch_namespaced_custom_object(*API, self.namespace, PLURAL, name, body)

    def delete(self, name: str, namespace: str | None = None) -> None:
        self.objects.delete_namespaced_custom_object(*API, namespace or self.namespace, PLURAL, name)

    def get(self, name: str, namespace: str | None = None) -> dict[str, Any]:
        return self.objects.get_namespaced_custom_object(*API, namespace or self.namespace, PLURAL, name)

    def all(self, namespace: str | None = None) -> list[dict[str, Any]]:
        return self.objects.list_namespaced_custom_object(*API, namespace or self.namespace, PLURAL)["items"]

    def status(self, name: str, namespace: str | None = None) -> dict[str, Any]:
        return self.get(name, namespace).get("status", {})

    def condition(self, name: str, kind: str = "Ready", namespace: str | None = None) -> tuple[str, str]:
        """(status, reason); ("", "") while there is none."""
        for each in self.status(name, namespace).get("conditions", []):
            if each["type"] == kind:
                return each["status"], each["reason"]
        return "", ""

    def events(self, name: str) -> list[str]:
        """Reasons of the Events on a breaker, oldest first."""
        found = self.core.list_namespaced_event(self.namespace, field_selector=f"involvedObject.name={name}").items
        return [each.reason for each in sorted(found, key=lambda each: (each.first_timestamp, each.metadata.name))]

    def until(self, condition: Any, what: str, seconds: float = 20.0) -> None:
        wait_until(condition, timeout_seconds=seconds, what=what)

    def until_ready(self, *names: str, namespace: str | None = None) -> None:
        for name in names:
            self.until(lambda name=name: self.condition(name, namespace=namespace)[0] == "True", f"{name} to be Ready")

    def until_state(self, name: str, state: str, seconds: float = 20.0) -> None:
        self.until(lambda: self.status(name).get("state") == state, f"status of {name} to say {state}", seconds)

    def until_events(self, name: str, reasons: Iterable[str]) -> None:
        """Waits until these have come, in any order, and holds that no other came, and none twice."""
        wanted = sorted(reasons)
        self.until(lambda: len(self.events(name)) >= len(wanted), f"{len(wanted)} Events on {name}")
        assert wanted == sorted(self.events(name))

    # -- Redis

    def fleet(self, name: str, namespace: str | None = None, keys: Keys | None = None) -> Fleet:
        return Fleet(self.redis, (keys or self.keys).breaker(BreakerKey(namespace or self.namespace, name)))

    def shown(self, name: str, namespace: str | None = None) -> str | None:
        return self.redis.hget(self.keys.states, f"{namespace or self.namespace}/{name}")

    def keys_of(self, name: str, namespace: str | None = None) -> set[str]:
        return set(self.redis.scan_iter(match=f"cb:{{{namespace or self.namespace}/{name}}}*", count=1_000))

    @contextmanager
    def through(self, client: Any) -> Iterator[None]:
        """Clients and the test itself speak to Redis through this one meanwhile."""
        before, self.redis = self.redis, client
        try:
            yield
        finally:
            self.redis = before
            client.close()

    def whole_life(self, name: str, *, namespace: str | None = None) -> None:
        """Made, opened by clients, recovered, deleted; status, Events and the shared hash tell it, each at once."""
        namespace = namespace or self.namespace
        self.create(name, namespace=namespace, recoveryTimeout="700ms", successThreshold=1)
        self.until_ready(name, namespace=namespace)
        fleet = self.fleet(name, namespace)
        self.until(lambda: self.shown(name, namespace) == "Closed", f"the shared hash to know {name}", 5)
        fleet.open()
        self.until(lambda: self.shown(name, namespace) == "Open", f"the shared hash to say that {name} is Open", 5)
        self.until(lambda: self.shown(name, namespace) == "HalfOpen", f"{name} to be HalfOpen in the shared hash", 5)
        fleet.recover()
        self.until(lambda: self.shown(name, namespace) == "Closed", f"the shared hash to say that {name} is Closed", 5)
        self.until(lambda: self.status(name, namespace)["stateGeneration"] == 4, f"the status of {name}", 5)
        status = self.status(name, namespace)
        assert [each["to"] for each in status["transitions"]] == ["Closed", "Open", "HalfOpen", "Closed"]
        if namespace == self.namespace:
            self.until_events(name, ["PolicyApplied", "CircuitOpened", "CircuitHalfOpen", "CircuitClosed"])
        self.delete(name, namespace)
        self.until(lambda: not self.keys_of(name, namespace), f"the keys of {name} to go", 5)
        self.until(lambda: self.shown(name, namespace) is None, f"the shared hash to forget {name}", 5)

    # -- operators

    @contextmanager
    def operator(self, *, kubeconfig: Path | None = None, **settings: str) -> Iterator[OperatorProcess]:
        """An operator that serves every namespace of this test; `CB_*` by keyword, without the prefix."""
        self._started += 1
        port = free_port()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("CB_")}
        environment |= {"KUBECONFIG": str(kubeconfig or self.credentials), "CB_REDIS_URL": self.server.url}
        environment |= {"CB_HTTP_HOST": "127.0.0.1", "CB_HTTP_PORT": str(port), "PYTHONUNBUFFERED": "1"}
        environment |= {"CB_SWEEP_INTERVAL": "2s"}
        environment |= {f"CB_{name}": value for name, value in settings.items()}
        command = [Path(sys.executable).with_name("circuitbreaker-operator"), "run"]
        process = Process(command, log=self.folder / f"operator-{self._started}.log", env=environment)
        try:
            yield OperatorProcess(process, port)
            assert not (trace := traceback_in(process.log)), trace
        finally:
            process.stop(6.0)
