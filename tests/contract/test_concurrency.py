"""Fifty client processes on one Redis, some of them killed at any moment, and what Redis wrote down of it.

The proof is the append-only file: Redis' own record of every write in the order in which it made them, each function
call one transaction. Replayed, it shows each lease from the moment it was granted (its end less the probe timeout, both
in Redis' time) to its end, so the number of live ones at every grant, which is the only moment at which it rises. The
clients' notes are a second witness that knows nothing of Redis' keys: by their own clock a probe lasts from the reply
that granted it until its outcome is sent, which lies within the time that Redis counts.

`CB_CONCURRENCY=full` asks for 10,000 openings and recoveries instead of 1,000.
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis

from circuitbreaker_contract import protocol
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import Decision, Reason, Snapshot, State
from circuitbreaker_local.processes import Process
from circuitbreaker_local.redis_server import RedisServer
from tests.contract.callers import KEYS, Caller, load, send
from tests.contract.layout import REPORTER

CLIENT = Path(__file__).with_name("client_process.py")
FULL = os.environ.get("CB_CONCURRENCY") == "full"
WANTED = 10_000 if FULL else 1_000  # openings, and recoveries
LONGEST_SECONDS = 400 if FULL else 55
CLIENTS = 50
BREAKERS = 16
KILLED_AT_ONCE = 3
PROBE_TIMEOUT_MS = 100
SETTLED = -(10**14)  # scores of the sorted set: rules.lua, "Leases live in one sorted set"
OPENINGS = {Reason.CONSECUTIVE_FAILURES, Reason.FAILURE_RATE, Reason.PROBE_FAILED, Reason.PROBES_LOST}


def policy(number: int) -> Policy:
    """Every breaker another: one to four probes at once, one to three successes, rules by streak, rate and quorum."""
    base = Policy(
        failure_threshold=3,
        recovery_timeout_ms=100,
        half_open_limit=1 + number % 4,
        success_threshold=1 + number % 3,
        probe_timeout_ms=PROBE_TIMEOUT_MS,
    )
    return (
        base,
        replace(base, min_reporters=3),
        replace(base, failure_threshold=0, window_ms=0, window_calls=10, minimum_calls=4, failure_rate_percent=60),
        replace(base, failure_threshold=6, window_ms=1_000, minimum_calls=5, failure_rate_percent=50),
    )[number // 4]


# -- what the clients wrote down


@dataclass
class Note:
    """A call of a client, and its reply unless the client was killed before it wrote it down."""

    client: str
    breaker: int
    function: str
    name: str
    generation: int
    detail: str
    sent_ns: int
    replied_ns: int = 0
    reply_generation: int = 0
    decision: str = ""
    lease_ms: int = 0

    @property
    def acknowledged(self) -> bool:
        return self.replied_ns > 0

    def letters(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for run in self.detail.split(",") if self.function == "report" else [f"{self.detail}1"]:
            found[run[0]] += int(run[1:])
        return found


def read_notes(path: Path) -> Iterator[Note]:
    last: Note | None = None
    for line in path.read_text(encoding="ascii").splitlines():
        kind, *words = line.split(" ")
        if kind == ">":
            if last is not None:
                yield last
            sent, breaker, function, name, generation, detail = words
            last = Note(path.stem, int(breaker), function, name, int(generation), detail, int(sent))
        else:
            assert last is not None
            replied, _, generation, last.decision, lease = words
            last.replied_ns, last.reply_generation, last.lease_ms = int(replied), int(generation), int(lease)
    if last is not None:
        yield last


# -- what Redis wrote down


def append_only(folder: Path) -> Iterator[list[list[str]]]:
    """The transactions of the append-only file, in order: the commands of each."""
    (path,) = folder.glob("data/appendonlydir/*.incr.aof")
    open_transaction: list[list[str]] | None = None
    with path.open("rb") as file:
        while line := file.readline():
            words = []
            for _ in range(int(line[1:])):
                length = int(file.readline()[1:])
                words.append(file.read(length + 2)[:-2].decode("latin-1"))  # some values are packed numbers
            match words[0].upper():
                case "MULTI":
                    open_transaction = []
                case "EXEC":
                    assert open_transaction is not None
                    yield open_transaction
                    open_transaction = None
                case _ if open_transaction is not None:
                    open_transaction.append(words)
                case _:
                    yield [words]


@dataclass
class Record:
    """What the file says of one breaker."""

    limit: int
    live: dict[str, int] = field(default_factory=dict)  # lease -> its end
    grants: set[tuple[str, int]] = field(default_factory=set)  # lease, generation
    most: int = 0  # live at once
    wrong: list[str] = field(default_factory=list)
    settled: set[str] = field(default_factory=set)
    history: list[dict[str, str]] = field(default_factory=list)
    seqs: dict[str, int] = field(default_factory=dict)  # client -> the last batch that was counted

    def take(self, transaction: list[list[str]], key: str) -> None:
        granted: list[str] = []
        counted = 0
        for command, name, *words in transaction:
            match command, name.removeprefix(key):
                case "XADD", ":history":
                    self.history.append(fields_of(words[4:]))  # after MAXLEN = 256 id
                case "ZADD", ":probes":
                    if self.is_granted(float(words[0]), words[1]):
                        granted.append(words[1])
                case "ZREMRANGEBYSCORE", ":probes":
                    self.live.clear()  # a new HalfOpen
                case "HSET", "":
                    for field_name, value in fields_of(words).items():
                        if field_name.startswith("c:"):
                            self.seqs[field_name[2:]] = int(REPORTER.unpack(value.encode("latin-1"))[0])
                case "HINCRBY", "" if words[0] == "probesGranted":
                    counted += int(words[1])
                case _:
                    pass
        if len(granted) != counted:
            self.wrong.append(f"granted {granted}, counted {counted}")
        # The generation of a call that first makes the breaker HalfOpen is in the entry that it adds.
        for lease in granted:
            place = (lease, int(self.history[-1]["generation"]))
            if place in self.grants:
                self.wrong.append(f"{place} was granted twice")
            self.grants.add(place)

    def is_granted(self, score: float, lease: str) -> bool:
        if score <= 0:
            self.live.pop(lease, None)
            if score <= SETTLED:
                self.settled.add(lease)
            return False
        now = int(score) - PROBE_TIMEOUT_MS
        self.live[lease] = int(score)
        at_once = sum(end > now for end in self.live.values())
        self.most = max(self.most, at_once)
        if at_once > self.limit:
            self.wrong.append(f"{at_once} live leases at {now}, {self.limit} are allowed: {self.live}")
        return True


def fields_of(words: list[str]) -> dict[str, str]:
    return dict(zip(words[::2], words[1::2], strict=True))


# -- the run


class Fleet:
    """The client processes: started, killed, replaced."""

    def __init__(self, port: int, folder: Path, stack: ExitStack) -> None:
        self.port, self.folder, self.stack = port, folder, stack
        self.random = random.Random(20_261_124)
        self.started, self.killed = 0, 0
        self.running: dict[str, Process] = {}

    def start(self) -> None:
        name = f"client-{self.started}"
        self.started += 1
        command = [sys.executable, CLIENT, self.port, name, BREAKERS, self.folder / f"{name}.notes", self.started]
        process = Process([str(word) for word in command], log=self.folder / f"{name}.log")
        self.stack.callback(process.kill)
        self.running[name] = process

    def replace_one(self) -> None:
        name = self.random.choice(sorted(self.running))
        process = self.running.pop(name)
        self.check(process)
        process.kill()
        self.killed += 1
        self.start()

    def stop(self) -> None:
        for process in self.running.values():
            os.kill(process.pid, signal.SIGTERM)
        for process in self.running.values():
            # Killed by it: one that was still being born, and had sent nothing.
            assert process.wait(10) in {0, -signal.SIGTERM}, process.tail()

    def check(self, process: Process) -> None:
        assert process.alive, process.tail()


@dataclass
class Run:
    """Everything there is to judge by."""

    killed: int
    seconds: float
    notes: list[Note]
    records: list[Record]
    snapshots: list[Snapshot]
    streams: list[list[dict[str, str]]]
    states: dict[str, str]
    messages: list[dict[str, Any]]
    resets: Counter[int]


@pytest.fixture(scope="module")
def run(redis_server_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("clients")
    with ExitStack() as stack:
        server = stack.enter_context(
            RedisServer(redis_server_binary, persistent=True, arguments=["--auto-aof-rewrite-percentage", "0"])
        )
        client = stack.enter_context(redis.Redis.from_url(server.url, decode_responses=True))
        load(client)
        listener = stack.enter_context(client.pubsub(ignore_subscribe_messages=True))
        listener.subscribe(KEYS.updates)
        callers = [Caller(client, f"breaker-{number}") for number in range(BREAKERS)]
        for number, caller in enumerate(callers):
            caller.define(policy(number))
        fleet = Fleet(server.port, folder, stack)
        messages: list[dict[str, Any]] = []
        resets: Counter[int] = Counter()
        began = time.monotonic()
        for _ in range(CLIENTS):
            fleet.start()
        while not enough(caller.observe() for caller in callers):
            assert time.monotonic() < began + LONGEST_SECONDS, "too slow"
            for _ in range(KILLED_AT_ONCE):
                fleet.replace_one()
            # An operator is about, and now and then a person.
            for caller in callers:
                caller.tick()
            number = fleet.random.randrange(BREAKERS)
            call = protocol.reset(callers[number].key, uid="u", token=f"token-{fleet.killed}")
            resets[number] += send(client, call).done
            messages += heard(listener)
        fleet.stop()
        seconds = time.monotonic() - began
        messages += heard(listener)
        snapshots = [caller.observe(history=256) for caller in callers]
        streams = [[entry for _, entry in client.xrange(KEYS.history(caller.breaker))] for caller in callers]
        states = client.hgetall(KEYS.states)
        records = [Record(policy(number).half_open_limit) for number in range(BREAKERS)]
        by_key = {caller.key: record for caller, record in zip(callers, records, strict=True)}
        for transaction in append_only(server.folder):
            keys = {words[1].partition("}")[0] + "}" for words in transaction if words[1:] and "}" in words[1]}
            if keys:
                (key,) = keys  # a call writes one breaker
                by_key[key].take([words for words in transaction if words[1].startswith(key)], key)
        notes = [note for path in sorted(folder.glob("*.notes")) for note in read_notes(path)]
        yield Run(fleet.killed, seconds, notes, records, snapshots, streams, states, messages, resets)


def enough(snapshots: Iterator[Snapshot]) -> bool:
    totals: Counter[str] = Counter()
    for snapshot in snapshots:
        for (_, state, reason), count in snapshot.transition_totals.items():
            if reason in OPENINGS:
                totals["openings"] += count
            elif (state, reason) == (State.CLOSED, Reason.PROBES_SUCCEEDED):
                totals["recoveries"] += count
    return min(totals["openings"], totals["recoveries"]) >= WANTED


def heard(listener: Any) -> list[dict[str, Any]]:
    found = []
    while (message := listener.get_message()) is not None:
        found.append(json.loads(message["data"]))
    return found


def test_it_was_a_fight(run: Run) -> None:
    """The run holds what the other tests judge: recoveries, failures, lost probes, resets, kills amid a call."""
    reasons = Counter(entry["reason"] for record in run.records for entry in record.history)
    unacknowledged = sum(not note.acknowledged for note in run.notes)
    print(  # noqa: T201
        f"\n{run.seconds:.1f} s, {len(run.notes)} calls, {run.killed} clients killed ({unacknowledged} in a call), "
        f"{sum(len(record.grants) for record in run.records)} probes, {dict(reasons)}"
    )
    for reason in (*OPENINGS, Reason.PROBES_SUCCEEDED, Reason.RESET):
        assert reasons[reason] > 0, reason
    assert run.killed >= 20
    assert unacknowledged > 0
    assert {record.most for record in run.records} == {1, 2, 3, 4}, "each limit was reached"


def test_live_probes_never_exceed_the_limit(run: Run) -> None:
    """At each grant that is in the file; and every grant is in it."""
    for record, snapshot in zip(run.records, run.snapshots, strict=True):
        assert record.wrong == []
        assert len(record.grants) == snapshot.probes.granted


def test_the_clients_saw_no_more_probes_at_once(run: Run) -> None:
    """By their own clock, in each generation: from the reply that granted to the outcome sent or the lease's end."""
    intervals: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    ends: dict[tuple[str, int], int] = {}
    for note in run.notes:
        if note.function == "settle":
            ends.setdefault((note.name, note.generation), note.sent_ns)
    seen = set()
    for note in run.notes:
        place = (note.name, note.reply_generation)
        if note.decision == Decision.PROBE and place not in seen:
            seen.add(place)
            # Redis' milliseconds are cut, hence the one.
            expired = note.sent_ns + (note.lease_ms - 1) * 1_000_000
            end = min(expired, ends.get(place, expired))
            if note.replied_ns < end:
                intervals[note.breaker, note.reply_generation].append((note.replied_ns, end))
    most: Counter[int] = Counter()
    for (breaker, generation), found in intervals.items():
        at_once = 0
        moments = sorted([(start, 1) for start, _ in found] + [(end, -1) for _, end in found])
        for _, step in moments:
            at_once += step
            most[breaker] = max(most[breaker], at_once)
            assert at_once <= policy(breaker).half_open_limit, f"breaker-{breaker}, generation {generation}"
    assert sum(most.values()) > BREAKERS, "probes did overlap"


def test_one_transition_for_each_generation(run: Run) -> None:
    """No gap, no double, each beginning where the one before ended; the stream is the end of it, the totals its sum."""
    for number, (record, snapshot, stream) in enumerate(zip(run.records, run.snapshots, run.streams, strict=True)):
        history = record.history
        assert [int(entry["generation"]) for entry in history] == list(range(1, snapshot.order.generation + 1))
        assert {int(entry["incarnation"]) for entry in history} == {snapshot.order.incarnation}
        for before, after in pairwise(history):
            assert after["previous"] == before["state"]
            assert int(after["at"]) >= int(before["at"])
        assert history[-1]["state"] == snapshot.state
        assert stream == history[-256:]
        moves = Counter((entry["previous"], entry["state"], entry["reason"]) for entry in history[1:])
        assert moves == {tuple(map(str, move)): count for move, count in snapshot.transition_totals.items()}
        assert sum(snapshot.state_ms.values()) == snapshot.now_ms - int(history[0]["at"])
        assert sum(count for (_, _, reason), count in moves.items() if reason == "Reset") == run.resets[number]
        assert run.states[f"demo/breaker-{number}"] == snapshot.state


def test_one_message_for_each_generation(run: Run) -> None:
    """Who listened from the beginning heard each transition once, in order."""
    generations: defaultdict[str, list[int]] = defaultdict(list)
    for message in run.messages:
        generations[message["service"]].append(message["generation"])
    for number, snapshot in enumerate(run.snapshots):
        assert generations[f"demo/breaker-{number}"] == list(range(1, snapshot.order.generation + 1))


def test_totals_are_what_was_sent(run: Run) -> None:
    """Each batch and each outcome once, however often it was sent; whether a killed client's last one, Redis knows."""
    sent: defaultdict[int, Counter[str]] = defaultdict(Counter)
    counted = set()
    doubtful: Counter[int] = Counter()
    refusals: Counter[int] = Counter()
    for note in run.notes:
        record = run.records[note.breaker]
        match note.function:
            case "acquire":
                refusals[note.breaker] += note.decision == Decision.NOT_PERMITTED
                doubtful[note.breaker] += not note.acknowledged
            case "report":
                arrived = record.seqs.get(note.client, 0) >= int(note.name)
                assert arrived or not note.acknowledged
            case "settle":
                arrived = note.name in record.settled
                assert arrived or not note.acknowledged
        place = (note.client, note.breaker, note.function, note.name)
        if note.function != "acquire" and arrived and place not in counted:
            counted.add(place)
            sent[note.breaker] += note.letters()
    for number, snapshot in enumerate(run.snapshots):
        letters, totals = sent[number], snapshot.totals
        good, bad = letters["S"] + letters["L"], letters["F"] + letters["M"]
        assert totals.successes + totals.failures + totals.late == good + bad
        assert totals.successes <= good
        assert totals.failures <= bad
        assert totals.ignored == letters["I"]
        least = letters["N"] + refusals[number]
        assert least <= totals.not_permitted <= least + doubtful[number]
    assert sum(doubtful.values()) <= run.killed


def test_who_was_granted_a_probe(run: Run) -> None:
    """Each probe that a client heard of is in the file; the others are those of clients killed in that call."""
    known: defaultdict[int, set[tuple[str, int]]] = defaultdict(set)
    asking = set()
    for note in run.notes:
        if note.decision == Decision.PROBE:
            known[note.breaker].add((note.name, note.reply_generation))
        elif note.function == "acquire" and not note.acknowledged:
            asking.add(note.name)
    for number, record in enumerate(run.records):
        assert known[number] <= record.grants
        assert {lease for lease, _ in record.grants - known[number]} <= asking
