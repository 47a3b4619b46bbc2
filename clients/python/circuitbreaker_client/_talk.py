"""What the background thread says to Redis in one turn, and what becomes of the answers.

An answer may be late: whoever waits for it is sent away, and the thread waits on. Only when it does not come at all is
Redis silent; then one attempt is made after growing pauses, and everything that must not be lost stays where it is.
Either way questions fail at once instead of waiting for a timeout each.
"""

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet
from functools import partial
from random import random
from time import perf_counter
from typing import Any, Final, NamedTuple

from circuitbreaker_client._core import Core
from circuitbreaker_client._grants import Ask
from circuitbreaker_client._link import LibraryMissingError, SlotUnavailableError
from circuitbreaker_client._nodes import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Nodes
from circuitbreaker_client._outbox import Batch
from circuitbreaker_client._wire import Reach
from circuitbreaker_client.errors import StoreUnavailableError
from circuitbreaker_client.settings import Settings
from circuitbreaker_contract import protocol
from circuitbreaker_contract.errors import CircuitBreakerError, UnknownBreakerError
from circuitbreaker_contract.protocol import Call
from circuitbreaker_contract.rules import ENV
from circuitbreaker_contract.state import Outcome, Permit, Snapshot, Standing

logger = logging.getLogger("circuitbreaker_client")

ROUNDS: Final = 64  # pipelines in one turn at most, so that a storm of outcomes cannot keep hints waiting
AWAY_SECONDS: Final = 0.25  # until a breaker is asked for again whose node of a Redis Cluster was silent; it doubles
_MOST_WARNINGS: Final = 1_000  # each of another breaker; a process that calls any number of hosts has said enough then
_NONE: Final[AbstractSet[Core]] = frozenset()


class Job(NamedTuple):
    """A call, and what to do with its answer, which `ask` waits for."""

    core: Core
    call: Call[Any]
    read: Callable[[Any, float], None]
    ask: Ask | None = None


class Talk:
    """`submit` may be called and `dirty` added to by any thread; the rest belongs to the background thread."""

    def __init__(self, settings: Settings, reach: Reach, client: str) -> None:
        self.ends = False  # who closes the client waits for no late answer
        self.dirty: set[Core] = set()
        self._settings = settings
        self._client = client
        self.nodes = Nodes(reach, settings, self._is_late)
        self._inbox: deque[Ask] = deque()
        self._asked: set[Ask] = set()  # whose answers are under way
        self._late = False
        self._looking: defaultdict[Core, list[Ask]] = defaultdict(list)
        self._to_define: set[Core] = set()
        self._defined_at: dict[str, float] = {}
        self._away: set[Core] = set()  # of a node that is silent while others speak
        self._away_until = 0.0
        self._away_seconds = AWAY_SECONDS
        self._down_since: float | None = None
        self._try_at = 0.0
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._warned: set[str] = set()

    @property
    def is_up(self) -> bool:
        return self._down_since is None

    def reaches(self, core: Core) -> bool:
        """Whether it is heard, as far as is known."""
        return self.is_up and core not in self._away

    def forget(self, core: Core) -> None:
        """It is in use no more."""
        self._defined_at.pop(core.name, None)
        self._away.discard(core)

    def submit(self, ask: Ask) -> None:
        """Asks in the next turn, or answers at once that there is nobody to ask."""
        if ask.core in self._away:
            ask.fail(_away())
        elif self._late or not self.is_up:
            ask.fail(StoreUnavailableError("Redis is silent"))
        else:
            self._inbox.append(ask)

    def turn(self, cores: list[Core], active: Collection[Core], hinted: AbstractSet[Core]) -> None:
        """Says what `cores` have to say, and asks what is to be asked. `active`: all that Redis may be asked for.

        `hinted` are those of `cores` of which a message says that they have changed.
        """
        if self._down_since is not None and perf_counter() < self._try_at:
            self._fail(StoreUnavailableError("Redis is silent"))
            return
        if self._away and perf_counter() >= self._away_until:
            self._come_back()
        for _ in range(ROUNDS):
            jobs = self._jobs(cores, hinted)
            if not jobs:
                return
            hinted = _NONE
            sent_at = perf_counter()
            try:
                for number, answer in self.nodes.exchange([job.call for job in jobs]):
                    self._answered(jobs[number], answer, sent_at)
                self._came_up()
                if not self._away:
                    self._away_seconds = AWAY_SECONDS
                self._define()
            except StoreUnavailableError as error:
                self._went_down(error, active)
                return

    def last_turn(self, cores: list[Core]) -> None:
        """Before the end: only when Redis has answered lately; a second attempt, since there is no later one."""
        self.nodes.hurry()
        for _ in range(2 if self.is_up else 0):
            self._come_back()
            self.dirty.clear()
            self._try_at = 0.0
            self.turn(cores, [], _NONE)
            if self.is_up:
                break
        self._fail(StoreUnavailableError("the client is closed"))

    def close(self) -> None:
        self.nodes.close()

    # --- jobs --------------------------------------------------------------------------------------------------------

    def _jobs(self, cores: list[Core], hinted: AbstractSet[Core]) -> list[Job]:
        jobs: list[Job] = []
        cores = [core for core in cores if core not in self._away]
        asks = self._asks()
        # Before the questions, and of all who ask: a slot that this process has just freed is not refused to it.
        for core in dict.fromkeys([*cores, *(ask.core for ask in asks)]):
            jobs += [self._settle(core, *each) for each in [*core.settling]]
        self._asked.clear()
        for ask in asks:
            if ask.lease is None:
                self._looking[ask.core].append(ask)
                self.dirty.add(ask.core)
            else:
                self._asked.add(ask)
                call = protocol.acquire(ask.core.redis_key, client=self._client, lease=ask.lease)
                jobs.append(Job(ask.core, call, partial(self._acquired, ask), ask))
        for core in cores:
            if (batch := core.next_batch()) is not None:
                jobs.append(Job(core, self._report(core, batch), partial(self._reported, core)))
            elif core in hinted:
                # The reply to a report tells the standing, at a fifth of what the whole snapshot costs; and a report
                # that Redis has seen already counts nothing. Of fifty processes the last one gains most.
                if (repeated := core.repeatable(perf_counter())) is not None:
                    jobs.append(Job(core, self._report(core, repeated), partial(self._repeated, core)))
                else:
                    self.dirty.add(core)
        while self.dirty:
            core = self.dirty.pop()
            if core not in self._away:
                jobs.append(Job(core, protocol.observe(core.redis_key), partial(self._observed, core)))
        return jobs

    def _asks(self) -> list[Ask]:
        """Those that can be brought to somebody."""
        asks: list[Ask] = []
        for _ in range(len(self._inbox)):
            ask = self._inbox.popleft()
            if ask.core in self._away:
                ask.fail(_away())
            else:
                asks.append(ask)
        return asks

    def _answered(self, job: Job, answer: Any, sent_at: float) -> None:
        if not isinstance(answer, StoreUnavailableError):
            self._came_up()  # before anybody who waited goes on
            job.read(answer, sent_at)
            return
        if not self._away:
            self._away_until = perf_counter() + self._away_seconds
            self._away_seconds = min(2 * self._away_seconds, LONGEST_PAUSE_SECONDS)
        self._away.add(job.core)
        if isinstance(answer, SlotUnavailableError):  # Nodes tells of those that are silent
            self._warn(job.core.name, f"{job.core.name}: the Redis Cluster does not serve it at the moment: {answer}")
        asks = self._looking.pop(job.core, [])
        if job.ask is not None:
            self._asked.discard(job.ask)
            asks.append(job.ask)
        for ask in asks:
            ask.fail(answer)

    def _come_back(self) -> None:
        self.dirty.update(self._away)
        self._away.clear()

    def _report(self, core: Core, batch: Batch) -> Call[Standing]:
        return protocol.report(core.redis_key, client=self._client, seq=batch.seq, order=batch.order, batch=batch.runs)

    def _repeated(self, core: Core, answer: Standing | CircuitBreakerError, sent_at: float) -> None:
        if isinstance(answer, Standing):
            core.saw_standing(answer, sent_at)
        else:
            self.dirty.add(core)

    def _settle(self, core: Core, lease: str, order: tuple[int, int], outcome: Outcome) -> Job:
        call = protocol.settle(core.redis_key, client=self._client, lease=lease, order=order, outcome=outcome)
        return Job(core, call, partial(self._settled, core, lease))

    def _settled(self, core: Core, lease: str, answer: Standing | CircuitBreakerError, sent_at: float) -> None:
        core.saw_settled(lease)
        if isinstance(answer, Standing):
            core.saw_standing(answer, sent_at)
        else:
            self.dirty.add(core)

    def _acquired(self, ask: Ask, answer: Permit | CircuitBreakerError, sent_at: float) -> None:
        self._asked.discard(ask)
        if isinstance(answer, Permit):
            ask.core.saw_permit(ask, answer, sent_at)
        else:
            self.dirty.add(ask.core)
            ask.fail(answer)
        ask.set()

    def _reported(self, core: Core, answer: Standing | CircuitBreakerError, sent_at: float) -> None:
        if isinstance(answer, Standing):
            core.saw_report_acknowledged()
            core.saw_standing(answer, sent_at)
            return
        if not isinstance(answer, UnknownBreakerError | LibraryMissingError):
            self._warn(core.name, f"{core.name}: a report was refused and is dropped: {answer}")
        core.saw_report_refused()
        self.dirty.add(core)

    def _observed(self, core: Core, answer: Snapshot | CircuitBreakerError, sent_at: float) -> None:
        if isinstance(answer, Snapshot):
            self._warned.discard(core.name)
            core.saw_snapshot(answer, sent_at)
        elif self._is_to_be_defined(core, answer):
            self._to_define.add(core)
            self.dirty.add(core)
            return
        else:
            reason = "no such breaker in Redis" if isinstance(answer, UnknownBreakerError) else str(answer)
            self._warn(core.name, f"{core.name}: {reason}; this process decides alone until there is one")
            core.saw_nothing(reason)
        for ask in self._looking.pop(core, []):
            ask.set()

    # --- defining what is missing ------------------------------------------------------------------------------------

    def _is_to_be_defined(self, core: Core, answer: CircuitBreakerError) -> bool:
        if not self._settings.define_missing or not isinstance(answer, UnknownBreakerError | LibraryMissingError):
            return False
        now = perf_counter()
        if now - self._defined_at.get(core.name, float("-inf")) < self._settings.max_staleness_seconds / 2:
            return False  # it was of no use a moment ago
        self._defined_at[core.name] = now
        return True

    def _define(self) -> None:
        """Loads the library if it is missing, and defines breakers from the client's own policy."""
        if not self._to_define:
            return
        wanted = [*self._to_define]
        self._to_define.clear()
        try:
            policy = self._settings.policy
            calls = [
                protocol.configure(core.redis_key, owner=ENV, uid=ENV, generation=1, policy=policy) for core in wanted
            ]
            self.nodes.load_library(calls)
            deque(self.nodes.exchange(calls), maxlen=0)  # what became of it shows at the next look
        except StoreUnavailableError:
            raise
        except CircuitBreakerError as error:
            self._warn("define", f"breakers cannot be defined: {error}")

    # --- up and down -------------------------------------------------------------------------------------------------

    def _is_late(self) -> None:
        """The answers go on being waited for, but by nobody else."""
        if self.ends:
            raise TimeoutError("the client is being closed")
        self._late = True
        self._fail(StoreUnavailableError("Redis gave no answer in time"))

    def _went_down(self, error: StoreUnavailableError, active: Collection[Core]) -> None:
        now = perf_counter()
        if self._down_since is None:
            self._down_since = now
            logger.warning("Redis is silent, breakers go on with what they know: %s", error)
        self._try_at = now + self._pause_seconds * (0.5 + random() / 2)  # noqa: S311 - a fleet should not come as one
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
        self._away.clear()
        self.dirty.update([*active])
        self._fail(error)

    def _came_up(self) -> None:
        self._late = False
        if self._down_since is not None:
            logger.warning("Redis answers again after %.1f s", perf_counter() - self._down_since)
            self._down_since, self._pause_seconds = None, FIRST_PAUSE_SECONDS

    def _fail(self, error: StoreUnavailableError) -> None:
        """Whoever waits decides alone."""
        asks = [*self._asked, *(each for asks in self._looking.values() for each in asks)]
        while self._inbox:
            asks.append(self._inbox.popleft())
        self._asked.clear()
        self._looking.clear()
        for ask in asks:
            ask.fail(error)

    def _warn(self, what: str, text: str) -> None:
        if what not in self._warned and len(self._warned) < _MOST_WARNINGS:
            self._warned.add(what)
            logger.warning(text)


def _away() -> StoreUnavailableError:
    return StoreUnavailableError("its node of the Redis Cluster is silent, or does not serve it at the moment")
