"""What a service says of its breakers at an endpoint of its own, as plain values."""

from collections import Counter
from typing import Any, Final

from circuitbreaker_client._breakers import BreakersBase
from circuitbreaker_contract.state import Outcome, State

_FAILURES: Final = (Outcome.FAILURE, Outcome.SLOW_FAILURE)
_COUNTED: Final = (*_FAILURES, Outcome.SUCCESS, Outcome.SLOW_SUCCESS)


class CircuitBreakerHealth:
    """`check_health()` of the breakers in use; costs no round trip, so it may be asked as often as one likes.

    Say it at an endpoint for people and dashboards. It is no readiness: a service with an open circuit answers, in its
    degraded way, and must not be taken out or restarted for it.
    """

    def __init__(self, breakers: BreakersBase[Any]) -> None:
        self._breakers = breakers

    def check_health(self) -> dict[str, Any]:
        """`{"status", "metrics", "open_circuits"}`, ready for JSON.

        `status`: `healthy`, or `degraded` while a circuit is Open or shared state is not to be had. `open_circuits`:
        names, `namespace/name`. `metrics` counts this process: circuits by state, calls, the share of failures among
        them in percent (None: no calls yet), and how far the reports of outcomes and refusals are.
        """
        found = self._breakers.statistics()
        states = Counter(each.state for each in found.values())
        open_circuits = sorted(name for name, each in found.items() if each.state is State.OPEN)
        without_shared_state = sorted(name for name, each in found.items() if each.degraded)
        outcomes = {letter: sum(each.outcomes.get(letter, 0) for each in found.values()) for letter in Outcome}
        counted, failures = (sum(outcomes[letter] for letter in some) for some in (_COUNTED, _FAILURES))
        return {
            "status": "degraded" if open_circuits or without_shared_state else "healthy",
            "metrics": {
                "circuits": {
                    "total": len(found),
                    "closed": states[State.CLOSED],
                    "open": states[State.OPEN],
                    "half_open": states[State.HALF_OPEN],
                },
                "calls": {
                    "permitted": sum(each.permitted for each in found.values()),
                    "not_permitted": sum(each.refused for each in found.values()),
                    "failures": failures,
                    "ignored": outcomes[Outcome.IGNORED],
                },
                "error_rate_percent": round(100 * failures / counted, 2) if counted else None,
                "reports": {
                    "acknowledged": sum(each.reported for each in found.values()),
                    "buffered": sum(each.buffered for each in found.values()),
                    "dropped": sum(each.dropped for each in found.values()),
                },
                "without_shared_state": without_shared_state,
            },
            "open_circuits": open_circuits,
        }
