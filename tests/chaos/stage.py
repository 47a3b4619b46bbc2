"""What a fault happens to: a control plane, a Redis, an operator and client processes, with steady traffic."""

import json
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from kubernetes.client.exceptions import ApiException
from redis.exceptions import RedisError
from urllib3.exceptions import HTTPError

from circuitbreaker_contract.errors import CircuitBreakerError
from circuitbreaker_contract.protocol import MAX_HISTORY
from circuitbreaker_contract.state import Snapshot, State
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.kubeconfig import Server, authority_of, write_kubeconfig
from circuitbreaker_local.redis_server import RedisServer
from circuitbreaker_local.waiting import wait_until
from tests.chaos.checks import difference
from tests.chaos.traffic import FLAKY, HELD, NAMES, STEADY, Backend, ClientProcess
from tests.cluster.world import OperatorProcess, World
from tests.relay import Relay

OPERATOR = "operator"  # a user of the API server, and one of Redis
CLIENTS = ("first", "second", "third")  # each a user of Redis; the third one comes when the first is gone
SECRET = "right"
LATE_SECONDS = 0.2
OPERATOR_SETTINGS = {"REDIS_TIMEOUT": "1s", "STATUS_REFRESH": "1s", "SWEEP_INTERVAL": "2s"}
SWEEP_SECONDS = 2.0
# What the test's own connections say while a server comes up, and Redis of a breaker that is not made again yet.
NOT_YET = (RedisError, CircuitBreakerError, ApiException, HTTPError)
RECOVERY = {"recoveryTimeout": "1s", "halfOpenLimit": 2, "successThreshold": 2, "probeTimeout": "2s"}


def new_redis(binary: Path) -> RedisServer:
    """Keeps its data, and has a user for each kind of caller; the default user is the test's own."""
    users = [
        word for name in (OPERATOR, *CLIENTS) for word in ("--user", name, "on", f">{SECRET}", "~*", "&*", "+@all")
    ]
    return RedisServer(binary, persistent=True, arguments=users)


@dataclass(frozen=True)
class Ways:
    """Relays on the ways to the servers; None: the way is direct."""

    operator_to_api: Relay | None = None
    operator_to_redis: Relay | None = None
    clients_to_redis: Relay | None = None
    first_client_to_redis: Relay | None = None
    api_to_etcd: Relay | None = None


@dataclass(frozen=True)
class Look:
    """What an operator answered on its probes."""

    phase: str
    alive: int
    ready: int
    said: str


class Stage:
    """Everything runs once it is entered. `phase` names what happens, for whoever reads the looks afterwards."""

    operator_settings: Mapping[str, str] = OPERATOR_SETTINGS
    client_module = "tests.chaos.traffic"
    look_seconds = 0.2

    def __init__(self, plane: ControlPlane, server: RedisServer, folder: Path, ways: Ways) -> None:
        self.plane, self.server, self.folder, self.ways = plane, server, folder, ways
        self.phase = "before"
        self.looks: list[Look] = []
        self.clients: list[ClientProcess] = []
        self.backend = Backend(folder)
        self.operator_logs: list[Path] = []
        self._stack = ExitStack()
        self._ended = threading.Event()
        self._operators = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _begin(self) -> None:
        self.world = World(self.plane, self.server, self.folder)
        self._stack.callback(self.world.close)
        self.world.credentials = self._kubeconfig()
        self._stack.callback(self._end_clients)
        self._stack.enter_context(self._operators)
        self.start_operator()
        self.world.create(STEADY, **RECOVERY)
        self.world.create(FLAKY, **RECOVERY)
        self.world.create(HELD, **{**RECOVERY, "recoveryTimeout": "1h"})
        self.world.until_ready(*NAMES)
        self.world.fleet(HELD).open()
        for name in CLIENTS[:2]:
            self.start_client(name)
        self.until(lambda: all(self.agrees(each) for each in self.clients), "the clients to know all breakers")
        self.until_told()
        self._stack.callback(self._ended.set)
        watcher = threading.Thread(target=self._watch, name="probes", daemon=True)
        self._stack.callback(watcher.join, 15)
        watcher.start()
        self._stack.callback(self._ended.set)  # before the join: the stack goes backwards

    # -- who runs

    def start_operator(self) -> None:
        relay = self.ways.operator_to_redis
        port = relay.port if relay else self.server.port
        url = f"redis://{OPERATOR}:{SECRET}@127.0.0.1:{port}/0"
        operator = self._operators.enter_context(self.world.operator(REDIS_URL=url, **self.operator_settings))
        self.operator_logs.append(operator.process.log)
        self.operator: OperatorProcess = operator.wait_ready()

    def start_client(self, name: str) -> ClientProcess:
        relay = self.ways.clients_to_redis or (self.ways.first_client_to_redis if name == "first" else None)
        port = relay.port if relay else self.server.port
        settings = {
            "CB_REDIS_URL": f"redis://{name}:{SECRET}@127.0.0.1:{port}/0",
            "CB_NAMESPACE": self.world.namespace,
            "CB_MAX_STALENESS": "2s",
        }
        client = ClientProcess(self.folder, name, settings, module=self.client_module)
        self.clients.append(client)
        return client

    def _end_clients(self) -> None:
        for each in self.clients:
            each.process.kill()

    def _kubeconfig(self) -> Path:
        relay = self.ways.operator_to_api
        if relay is None:
            return self.plane.kubeconfig_of(OPERATOR)
        return kubeconfig_through(relay, self.plane, self.folder)

    # -- what is known

    def observe(self, name: str) -> Snapshot:
        """What Redis holds, with the whole history."""
        return self.world.fleet(name).observe(history=MAX_HISTORY)

    def agrees(self, client: ClientProcess) -> bool:
        """Whether a client acts on what Redis holds, of every breaker."""
        for name in NAMES:
            view, truth = client.view(name), self.observe(name)
            if (view.get("state"), view.get("source")) != (truth.state.value, "SHARED"):
                return False
            if view["order"] != list(truth.order):
                return False
        return True

    def until(self, condition: Any, what: str, seconds: float = 20.0) -> None:
        def holds() -> bool:
            try:
                return bool(condition())
            except NOT_YET:
                return False

        try:
            wait_until(holds, timeout_seconds=seconds, what=what)
        except Exception as error:
            said = "\n".join(f"--- {path.name}\n{_tail(path)}" for path in self._logs())
            raise AssertionError(f"{self.phase}: {error}\n{said}") from error

    def until_told(self, seconds: float = 20.0) -> None:
        """Until every status says what Redis does."""
        try:
            self.until(lambda: not self.untold(), "the statuses to say what Redis does", seconds)
        except AssertionError as error:
            raise AssertionError(f"(status, Redis) are {self.untold()}\n{error}") from error

    def untold(self) -> dict[str, Any]:
        found = {name: difference(self.world.status(name), self.observe(name)) for name in NAMES}
        return {name: each for name, each in found.items() if each}

    def until_state(self, name: str, state: State, seconds: float = 20.0) -> None:
        self.until(lambda: self.observe(name).state is state, f"{name} to be {state} in Redis", seconds)

    def health(self) -> dict[str, Any]:
        """What `/health` says of the components; empty when it says nothing."""
        body = self.operator.get("/health")[1]
        return json.loads(body)["metrics"]["components"] if body else {}

    def log(self) -> str:
        return "".join(path.read_text(encoding="utf-8") for path in self.operator_logs)

    def _logs(self) -> list[Path]:
        return [*self.operator_logs, *(each.log for each in self.clients)]

    def _watch(self) -> None:
        same: dict[Look, Look] = {}  # most are: for hours of them there is one object
        while not self._ended.wait(self.look_seconds):
            phase, operator = self.phase, self.operator
            alive, (ready, said) = operator.get("/healthz")[0], operator.get("/readyz")
            if phase == self.phase and operator is self.operator:  # else it is not clear what it is an answer to
                look = Look(phase, alive, ready, said)
                self.looks.append(same.setdefault(look, look))


def kubeconfig_through(relay: Relay, plane: ControlPlane, folder: Path) -> Path:
    """The operator's user, on the way to the API server through a relay."""
    path = folder / "relay.kubeconfig"
    server = Server(f"https://127.0.0.1:{relay.port}", authority_of(plane.api_server.chain.read_text()))
    write_kubeconfig(path, server, user=OPERATOR, token=token_of(plane, OPERATOR))
    return path


def token_of(plane: ControlPlane, user: str) -> str:
    """The token that the API server knows a user by."""
    rows = [line.split(",") for line in (plane.folder / "tokens.csv").read_text().splitlines()]
    return next(token for token, name, *_ in rows if name == user)


def _tail(path: Path, lines: int = 25) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
