"""The stage of a soak: that of tests/chaos with many more breakers, a mixed load, and a look at every process."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Final

import psutil
from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException

from circuitbreaker_contract.state import Reason, Snapshot
from circuitbreaker_operator.events import base36
from tests.chaos import checks
from tests.chaos.stage import CLIENTS, NOT_YET, RECOVERY, Stage
from tests.cluster.world import traceback_in
from tests.soak.samples import Sample
from tests.soak.traffic import BUSY

RESET: Final = "circuitbreaker.dev/reset"
MIB: Final = 1024 * 1024
SETTLE_SECONDS: Final = 150.0  # two sweeps, and what the last fault takes
EVENTS_LAST_MS: Final = 50 * 60 * 1000  # the API server forgets an Event after an hour
MOST_MADE: Final = 50
ANSWER_SECONDS: Final = 5.0
NOT_FOUND: Final = 404
_TASKS: Final = tuple(f'circuitbreaker_operator_tasks{{loop="{loop}"}}' for loop in ("operator", "watch"))


class SoakStage(Stage):
    """`actions` counts what the load did; "unanswered" is what met a server that was down just then."""

    operator_settings: ClassVar = {"REDIS_TIMEOUT": "1s", "SWEEP_INTERVAL": "60s"}
    client_module = "tests.soak.traffic"
    look_seconds = 5.0

    def fill(self, breakers: int) -> None:
        """Makes the breakers that are seldom touched, and waits until all of them are Ready."""
        _never_wait_for_ever(self.world.api)
        self.actions: Counter[str] = Counter()
        self.quiet = [f"quiet-{number:05}" for number in range(breakers)]
        self.made: list[str] = []
        self._number = 0
        self._lives: dict[str, list[int]] = {}
        self._operator_began = time.monotonic()
        self._patience = 60.0 + breakers / 10
        for name in BUSY:
            self.world.create(name, **RECOVERY)
        with ThreadPoolExecutor(4) as pool:
            for made in [pool.submit(self.world.create, name, **RECOVERY) for name in self.quiet]:
                made.result()
        self.until(self._all_ready, "all breakers to be Ready", self._patience)
        self.start_client(CLIENTS[2])

    def start_operator(self) -> None:
        super().start_operator()
        self._operator_began = time.monotonic()

    def operator_minutes(self) -> float:
        """How long the operator lives."""
        return (time.monotonic() - self._operator_began) / 60

    def _all_ready(self) -> bool:
        found = [item.get("status", {}).get("conditions", []) for item in self.world.all()]
        return all(any(each["type"] == "Ready" and each["status"] == "True" for each in all_) for all_ in found)

    # -- load

    def act(self, chance: Random) -> None:
        """One action of one of its kinds, on breakers at random."""
        self._number += 1
        kinds = {
            self._edit: 3,
            self._reset: 2,
            self._hold: 1,
            self._make: 2,
            self._delete: 2,
            self._open: 3,
            self._recover: 4,
            self._break: 2,
            self._mend: 3,
        }
        act = chance.choices([*kinds], [*kinds.values()])[0]
        try:
            act(chance)
        except (*NOT_YET, OSError, AssertionError):  # a server is down; or a breaker moved on meanwhile, as breakers do
            self.actions["unanswered"] += 1
        else:
            self.actions[act.__name__.removeprefix("_")] += 1

    def _edit(self, chance: Random) -> None:
        spec = {"failureThreshold": chance.randint(2, 9), "override": None}
        self.world.patch(chance.choice(self.quiet), {"spec": spec})

    def _reset(self, chance: Random) -> None:
        name = chance.choice([*self.quiet, *BUSY])
        self.world.patch(name, {"metadata": {"annotations": {RESET: f"reset-{self._number}"}}})

    def _hold(self, chance: Random) -> None:
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + chance.randint(20, 300)))
        override = {"state": chance.choice(["Open", "Closed"]), "reason": "soak", "until": until}
        self.world.patch(chance.choice(self.quiet), {"spec": {"override": override}})

    def _make(self, _: Random) -> None:
        if len(self.made) < MOST_MADE:
            name = f"made-{self._number:06}"
            self.world.create(name, **RECOVERY)
            self.made.append(name)

    def _delete(self, chance: Random) -> None:
        if self.made:
            name = chance.choice(self.made)
            try:
                self.world.delete(name)
            except ApiException as error:
                if error.status != NOT_FOUND:  # gone already: the answer to an earlier try was lost
                    raise
            self.made.remove(name)

    def _open(self, chance: Random) -> None:
        for name in chance.sample(self.quiet, min(3, len(self.quiet))):
            self.world.fleet(name).open()

    def _recover(self, chance: Random) -> None:
        for name in chance.sample(self.quiet, min(9, len(self.quiet))):
            with suppress(AssertionError):  # it is not HalfOpen
                self.world.fleet(name).recover()

    def _break(self, chance: Random) -> None:
        (self.folder / f"broken-{chance.choice(BUSY)}").touch()

    def _mend(self, chance: Random) -> None:
        for path in self.folder.glob("broken-*"):
            if chance.random() < 0.5:
                path.unlink(missing_ok=True)

    # -- measures

    def sample(self, at_seconds: float) -> list[Sample]:
        """Every figure of every process that answers."""
        return list(self._samples(at_seconds))

    def _samples(self, at_seconds: float) -> Iterator[Sample]:
        own = psutil.Process()
        yield from self._of("bench", own.pid, at_seconds)
        yield from self._of("operator", self.operator.process.pid, at_seconds)
        tasks = self.operator.metrics(_TASKS)
        if len(tasks) == len(_TASKS):
            life = self._life("operator", self.operator.process.pid)
            yield Sample(at_seconds, "operator", life, "tasks", sum(tasks.values()))
        for client in [*self.clients]:
            if not client.process.alive:
                continue
            yield from self._of(client.name, client.process.pid, at_seconds)
            if client.name == CLIENTS[1] and (tasks_of := _own(client.report.with_suffix(".own")).get("tasks")):
                yield Sample(at_seconds, client.name, self._life(client.name, client.process.pid), "tasks", tasks_of)

    def _of(self, name: str, pid: int, at_seconds: float) -> Iterator[Sample]:
        life = self._life(name, pid)
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                figures = process.memory_info().rss / MIB, process.num_threads(), process.num_fds()
        except psutil.Error:
            return
        for figure, value in zip(("rss_mib", "threads", "fds"), figures, strict=True):
            yield Sample(at_seconds, name, life, figure, value)

    def _life(self, name: str, pid: int) -> int:
        lives = self._lives.setdefault(name, [])
        if not lives or lives[-1] != pid:
            lives.append(pid)
        return len(lives)

    def calls(self) -> int:
        """Of the clients that are there, so far."""
        return sum(each.calls() for each in self.clients)

    # -- the end

    def verdict(self) -> list[str]:
        """Waits until everything is at rest; then what is wrong, in words."""
        wrong = []
        for each in self.clients:
            seen = each.seen()
            wrong += [f"client {each.name} raised {error} {times} times" for error, times in seen["errors"].items()]
        self.backend.stop_traffic(self.clients)
        for path in (*self.operator_logs, *(each.log for each in self.clients)):
            if trace := traceback_in(path):
                wrong.append(f"in {path.name}: {trace}")
        snapshots: dict[str, Snapshot] = {}

        def settled() -> bool:
            nonlocal snapshots
            snapshots = self.snapshots()
            return not self.differences(snapshots)

        try:
            self.until(settled, "every status to say what Redis does", SETTLE_SECONDS)
        except AssertionError:
            wrong += [f"status of {name}: {found}" for name, found in self.differences(snapshots).items()]
        dead = [look for look in self.looks if look.alive != 200]
        wrong += [f"liveness answered {look.alive}" for look in dead if look.alive]
        # An Event comes before the status that says the same. What has happened since is not looked for.
        return wrong + self._untold(snapshots)

    def snapshots(self) -> dict[str, Snapshot]:
        """All that is in Redis. What there should be the API server knows: answers get lost on the way here."""
        found = (self.world.keys.parse(key) for key in self.world.redis.scan_iter(self.world.keys.breakers_pattern))
        return {each.name: self.observe(each.name) for each in found if each is not None}

    def differences(self, snapshots: dict[str, Snapshot]) -> dict[str, Any]:
        """(status, Redis) where they differ; None where there is no breaker."""
        statuses = {item["metadata"]["name"]: item.get("status", {}) for item in self.world.all()}
        one_sided = statuses.keys() ^ snapshots.keys()
        found: dict[str, Any] = {name: (statuses.get(name), snapshots.get(name)) for name in one_sided}
        both = statuses.keys() & snapshots.keys()
        found |= {name: checks.difference(statuses[name], snapshots[name]) for name in both}
        return {name: each for name, each in found.items() if each}

    def _untold(self, snapshots: dict[str, Snapshot]) -> list[str]:
        uids = {item["metadata"]["name"]: item["metadata"]["uid"] for item in self.world.all()}
        there = Counter(each.metadata.name for each in self._events())
        skipped = {name.partition(".")[0] for name in there if name.endswith(".skipped")}
        wrong = [f"the Event {name} is there {times} times" for name, times in there.items() if times > 1]
        for name, snapshot in snapshots.items():
            try:
                checks.without_gaps(snapshot)
            except AssertionError as error:
                wrong.append(f"history of {name}: {error}")
            for entry in snapshot.history:
                told = f"{name}.{uids.get(name, '')[:8]}.{base36(entry.incarnation)}.{entry.generation}"
                young = snapshot.now_ms - entry.at_ms < EVENTS_LAST_MS
                if young and entry.reason is not Reason.CREATED and told not in there and name not in skipped:
                    wrong.append(f"no Event {told} of {entry.reason}")
        return wrong

    def _events(self) -> Iterator[Any]:
        after = None
        while True:
            page = self.world.core.list_namespaced_event(self.world.namespace, limit=1000, _continue=after)
            yield from page.items
            after = page.metadata._continue
            if not after:
                return


def _never_wait_for_ever(api: ApiClient) -> None:
    """A paused server would hold the bench itself, which has to wake it up again."""
    request = api.rest_client.request

    def timely(*arguments: Any, **how: Any) -> Any:
        return request(*arguments, **(how | {"_request_timeout": how.get("_request_timeout") or ANSWER_SECONDS}))

    api.rest_client.request = timely


def _own(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
