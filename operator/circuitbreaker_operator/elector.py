"""Leader election by a Lease, as client-go does it, and with a release on a clean stop.

No clocks are compared: whoever does not hold the lease watches whether it changes, and calls it over when it did not
for as long as its holder promised, by the watcher's own clock. The holder stops earlier, at the renew deadline. So two
never lead at once, unless a person edits the Lease; and two leaders would do no harm, they would only do things twice.
"""

import asyncio
import logging
import os
import random
import socket
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NoReturn, Protocol

from circuitbreaker_operator import lease as leases
from circuitbreaker_operator.errors import ClusterRefusedError, ClusterUnavailableError, LeaseLostError
from circuitbreaker_operator.fence import OVER, Fence, now
from circuitbreaker_operator.lease import Lease
from circuitbreaker_operator.logs import Outage
from circuitbreaker_operator.settings import Settings

logger = logging.getLogger(__name__)

_RELEASE_SECONDS: Final = 1.0
_GONE: Final = 404
_CONFLICT: Final = 409
_REMEDY: Final = {
    True: "this replica stops leading {:g} s after its last renewal",
    False: "standing by until it can be read",
}


class LeaseApi(Protocol):
    """What is asked of the API server."""

    async def get_lease(self, namespace: str, name: str) -> Lease | None: ...
    async def create_lease(self, namespace: str, body: dict[str, object]) -> Lease: ...
    async def update_lease(self, namespace: str, name: str, body: dict[str, object]) -> Lease: ...


class Elector:
    """`acquire` waits until we lead, `hold` renews until that is over, `release` gives it back."""

    def __init__(
        self,
        settings: Settings,
        api: LeaseApi,
        fence: Fence,
        *,
        namespace: str,
        clock: Callable[[], float] = now,
    ) -> None:
        self._api = api
        self._fence = fence
        self._clock = clock
        self._namespace, self._name = namespace, settings.lease_name
        self._seconds = settings.lease_duration_ms // 1000
        self._deadline = settings.lease_renew_deadline_ms / 1000
        self._retry = settings.lease_retry_ms / 1000
        # The pod's name alone would be the same after a restart in place, and that is another process.
        self.identity = f"{os.environ.get('HOSTNAME') or socket.gethostname()}_{uuid.uuid4()}"
        self._seen: Lease | None = None
        self._changed_at = self._looked_at = 0.0
        where = f"{namespace}/{self._name}"
        self._outage = Outage(logger, f"lease {where}")
        self._where = {"lease": where, "identity": self.identity}
        self.leading = False

    @property
    def holder(self) -> str:
        """Who had it when it was last looked at; empty: nobody."""
        return self._seen.holder if self._seen is not None else ""

    @property
    def sees(self) -> bool:
        """Whether the Lease could be read lately: who does not see it would not notice that nobody leads."""
        return self._looked_at > 0.0 and self._clock() - self._looked_at < self._seconds

    async def acquire(self) -> None:
        """Back when we lead."""
        logger.info("waiting for the lease", extra=self._where)
        while not await self._attempt(self._try_to_acquire):  # noqa: ASYNC110 # nobody here knows when it changes
            # Twice in each retry period, so that one that is given back is taken at once; and never all in step.
            await asyncio.sleep(self._retry * random.uniform(0.25, 0.5))  # noqa: S311 # jitter, no secret
        self.leading = True
        logger.info("leading", extra=self._where)

    async def hold(self) -> NoReturn:
        """Renews. Raises LeaseLostError as soon as the lease is somebody else's, or may be."""
        while True:
            await asyncio.sleep(self._retry * random.uniform(0.8, 1.0))  # noqa: S311 # jitter, no secret
            await self._attempt(self._renew)
            if self._fence.until is None or self._clock() >= self._fence.until:
                raise LeaseLostError(OVER)

    async def release(self) -> None:
        """Gives it back if it is ours. Nothing may be written after this."""
        if not self.leading:
            return
        self.leading, self._fence.until = False, None
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                while self._seen is not None and self._seen.holder == self.identity:
                    if await self._written(leases.released(self._seen, at=_wall())):
                        logger.info("the lease is given back", extra=self._where)
                        return
        except (ClusterUnavailableError, ClusterRefusedError, TimeoutError) as error:
            text = "the lease could not be given back, another replica waits until it is over: %s"
            logger.warning(text, error or type(error).__name__, extra=self._where)

    async def _attempt(self, what: "Callable[[], object]") -> bool:
        """Whether it worked. A third of the deadline each: a connection that hangs must leave time for another one."""
        try:
            async with asyncio.timeout(self._deadline / 3):
                worked = await what()  # type: ignore[misc]
        except ClusterRefusedError as error:
            self._outage.failed(error, remedy="check that leases may be got, created and updated in that namespace")
            return False
        except (ClusterUnavailableError, TimeoutError) as error:
            self._outage.failed(str(error) or "no answer", remedy=_REMEDY[self.leading].format(self._deadline))
            return False
        self._outage.recovered()
        return bool(worked)

    async def _try_to_acquire(self) -> bool:
        await self._look()
        lease = self._seen
        mine = lease is not None and lease.holder == self.identity  # it was taken, and the answer lost
        if lease is not None and lease.holder and not mine:
            if self._clock() - self._changed_at < lease.duration_seconds:
                return False
            logger.info("the lease is over", extra=self._where | {"holder": lease.holder})
        if mine and lease is not None:
            return await self._written(leases.renewed(lease, seconds=self._seconds, at=_wall()))
        return await self._written(
            leases.taken(
                lease,
                namespace=self._namespace,
                name=self._name,
                holder=self.identity,
                seconds=self._seconds,
                at=_wall(),
            )
        )

    async def _renew(self) -> bool:
        """Raises LeaseLostError when another one has it."""
        lease = self._seen
        if lease is not None and lease.holder == self.identity:
            if await self._written(leases.renewed(lease, seconds=self._seconds, at=_wall())):
                return True
            lease = self._seen
            if lease is not None and lease.holder == self.identity:  # edited, or an answer was lost: the newer version
                return await self._written(leases.renewed(lease, seconds=self._seconds, at=_wall()))
        if lease is not None and lease.holder:
            self._lose(f"the lease was taken by {lease.holder}")
        return await self._try_to_acquire()  # a person deleted or emptied it

    def _lose(self, why: str) -> NoReturn:
        self._fence.until = None
        self.leading = False
        raise LeaseLostError(why)

    async def _look(self) -> None:
        self._take(await self._api.get_lease(self._namespace, self._name))

    def _take(self, lease: Lease | None) -> None:
        self._looked_at = self._clock()
        if lease != self._seen:
            self._changed_at = self._looked_at
            if lease is not None and lease.holder not in {self.identity, self.holder, ""}:
                logger.info("another one leads", extra=self._where | {"holder": lease.holder})
        self._seen = lease

    async def _written(self, body: dict[str, object]) -> bool:
        """False when somebody was faster; then it has been looked at again."""
        sent_at = self._clock()
        try:
            if self._seen is None:
                lease = await self._api.create_lease(self._namespace, body)
            else:
                lease = await self._api.update_lease(self._namespace, self._name, body)
        except ClusterRefusedError as error:
            if error.status not in {_GONE, _CONFLICT}:
                raise
            await self._look()
            return False
        self._take(lease)
        if lease.holder == self.identity:
            self._fence.until = sent_at + self._deadline
        return True


def _wall() -> str:
    """For people: nobody decides by it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
