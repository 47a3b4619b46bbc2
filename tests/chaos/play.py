"""One cell of the matrix from its beginning to its end: what is waited for, and what is asserted."""

from circuitbreaker_contract.state import State
from tests.chaos import checks
from tests.chaos.matrix import Cell, Clients
from tests.chaos.stage import CLIENTS, LATE_SECONDS, SWEEP_SECONDS, Stage
from tests.chaos.traffic import FLAKY, HELD, NAMES, STEADY, ClientProcess

LATER = "later"  # a breaker that is asked for during the fault
SLOWEST_SECONDS = 2.0  # of one call in a client; they ask 0.1 s, the rest is a busy machine
SOON_SECONDS = 10.0


def play(stage: Stage, cell: Cell) -> None:
    """Traffic, the fault, its end, and everything as it should be again."""
    began = {name: stage.observe(name) for name in NAMES}
    stage.phase = "during"
    with cell.do(stage):
        with stage.backend.broken():
            _opens(stage, cell)
            _truth(stage, cell)
        _recovers(stage, cell)
    stage.phase = "after"
    _whole_again(stage, cell)
    _goes_on(stage)
    stage.phase = "over"
    stage.backend.stop_traffic(stage.clients)
    stage.until_told(SOON_SECONDS)
    _states(stage, cell, began)
    _counts(stage, cell)
    _operator(stage, cell)
    _clients(stage, cell)


# -- meanwhile


def _opens(stage: Stage, cell: Cell) -> None:
    """The backend of one breaker is broken: whoever calls it is refused, whatever else is amiss."""
    if cell.brief:
        return
    if cell.clients is not Clients.ALONE:
        stage.until(lambda: stage.observe(FLAKY).attempt > 0, "flaky to open in Redis")
    callers = stage.clients[1:] if cell.clients is Clients.FIRST_GONE else stage.clients
    before = {each.name: _refused(each) for each in callers}
    for each in callers:
        stage.until(lambda each=each: _refused(each) > before[each.name], f"the client {each.name} to refuse calls")


def _refused(client: ClientProcess) -> int:
    return client.seen()["refused"].get(FLAKY, 0)


def _truth(stage: Stage, cell: Cell) -> None:
    """Probes and conditions say what is so while the fault lasts."""
    if cell.asks_api and not cell.brief:
        stage.world.create(LATER)
    if cell.brief or not cell.runs:
        return
    if not cell.redis:
        stage.until(lambda: not stage.operator.ready, "readiness to tell")
        assert "redis" in stage.operator.get("/readyz")[1]
        assert stage.health()["redis"]["status"] == "down"
    if not cell.api:
        stage.until(lambda: stage.health()["kubernetes"]["status"] == "down", "health to tell of the API server", 60)
    for text in cell.says:
        stage.until(lambda text=text: text in stage.log(), f"the log to say {text!r}", 30)
    if cell.api and cell.redis and cell.clients is not Clients.ALONE:
        stage.world.until_ready(LATER)
        stage.until(lambda: stage.world.status(FLAKY)["attempt"] > 0, "the status to tell of it")
    elif cell.refused:
        stage.until(lambda: stage.world.condition(LATER) == ("False", cell.refused), "the condition to say why")
    elif cell.asks_api:
        assert stage.world.condition(LATER)[0] != "True"
    if cell.fault == "slow" and cell.target != "clients":
        part = "redis" if cell.target == "Redis" else "kubernetes"
        stage.until(lambda: stage.health()[part]["latency_ms"] >= LATE_SECONDS * 1000, "health to tell how slow it is")


def _recovers(stage: Stage, cell: Cell) -> None:
    """Breakers need nobody but their clients and Redis to recover."""
    if not cell.brief and cell.clients in {Clients.SHARED, Clients.FIRST_ALONE, Clients.FIRST_GONE}:
        stage.until_state(FLAKY, State.CLOSED)


# -- afterwards


def _whole_again(stage: Stage, cell: Cell) -> None:
    stage.until(lambda: stage.operator.ready, "readiness to come back", SOON_SECONDS)
    stage.until_state(FLAKY, State.CLOSED, SOON_SECONDS)
    callers = [each for each in stage.clients if each.process.alive]
    for each in callers:
        stage.until(lambda each=each: stage.agrees(each), f"the client {each.name} to act on what Redis holds")
    stage.until_told(SWEEP_SECONDS + cell.soon_seconds)
    if not cell.brief and cell.asks_api:
        stage.world.until_ready(LATER)


def _goes_on(stage: Stage) -> None:
    """An edit, which is one revision. Then a whole life once more: opened, told, recovered, told."""
    was = stage.observe(STEADY).order
    edited = stage.world.patch(STEADY, {"spec": {"failureThreshold": 7}})["metadata"]["generation"]
    stage.until(lambda: stage.observe(STEADY).policy.failure_threshold == 7, "an edit to be in force", SOON_SECONDS)
    stage.until(lambda: stage.world.status(STEADY)["observedGeneration"] == edited, "the status to tell", SOON_SECONDS)
    assert stage.observe(STEADY).order == was._replace(revision=was.revision + 1)
    before = stage.observe(FLAKY).order
    with stage.backend.broken():
        stage.until(lambda: stage.observe(FLAKY).attempt > 0, "flaky to open once more")
        stage.until(lambda: stage.world.status(FLAKY)["attempt"] > 0, "the status to tell of it", SOON_SECONDS)
    stage.until_state(FLAKY, State.CLOSED)
    assert stage.observe(FLAKY).order > before
    stage.until(lambda: stage.world.status(FLAKY)["state"] == "Closed", "the status to tell that it closed")


# -- in the end


def _states(stage: Stage, cell: Cell, began: dict) -> None:
    found = {name: stage.observe(name) for name in NAMES}
    for snapshot in found.values():
        checks.without_gaps(snapshot)
        checks.told_by_the_rules(snapshot)
    assert (found[STEADY].state, found[FLAKY].state, found[HELD].state) == (State.CLOSED, State.CLOSED, State.OPEN)
    for name in (STEADY, HELD):
        emptied = cell.fault == "empty"
        assert found[name].order.generation == began[name].order.generation + emptied
        assert (found[name].order.incarnation > began[name].order.incarnation) is emptied
        assert found[name].open_until_ms == began[name].open_until_ms
        if emptied:
            stage.until(lambda name=name: "CircuitRestored" in stage.world.events(name), f"an Event on {name}")
    told = stage.world.events(FLAKY)
    if "TransitionsSkipped" not in told:
        opened = sum(each.state is State.OPEN for each in found[FLAKY].history)
        assert told.count("CircuitOpened") == opened or (
            cell.fault == "empty" and told.count("CircuitOpened") >= opened
        )


def _counts(stage: Stage, cell: Cell) -> None:
    """What was acknowledged was counted once, and what was called was acknowledged, or is known to be dropped."""
    counted = [each.seen()["counted"][STEADY] for each in stage.clients]
    if cell.loses:
        return
    for each in counted:
        assert each["permitted"] == each["reported"] + each["dropped"]
    checks.counted_once(sum(each["reported"] for each in counted), stage.observe(STEADY))


def _operator(stage: Stage, cell: Cell) -> None:
    looks = list(stage.looks)
    if cell.target != "operator":
        assert {look.alive for look in looks} == {200}, "liveness"
    assert all(look.ready == 200 for look in looks if look.phase == "before")
    if cell.redis and cell.target not in {"operator", "Redis"}:
        assert {look.ready for look in looks} == {200}, "readiness"
    for path in stage.operator_logs:
        checks.said_once(path.read_text(encoding="utf-8"))
    for text in cell.says:
        assert text in stage.log()


def _clients(stage: Stage, cell: Cell) -> None:
    for each in stage.clients:
        seen = each.seen()
        assert not seen["errors"], (each.name, seen["errors"])
        assert STEADY not in seen["refused"], each.name
        log = each.log.read_text(encoding="utf-8")
        assert "Traceback" not in log, log
        checks.said_once(log)
        hit = cell.clients is Clients.ALONE or (cell.clients is Clients.FIRST_ALONE and each.name == CLIENTS[0])
        assert not hit or all(text in log for text in cell.client_says), log
        if (cell.target, cell.fault) != ("clients", "pause"):
            assert seen["slowest_seconds"] < SLOWEST_SECONDS, each.name
