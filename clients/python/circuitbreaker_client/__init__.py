"""Circuit breakers that a whole fleet shares, at the price of one in the process.

    from circuitbreaker_client import CircuitBreakers

    breakers = CircuitBreakers.from_env()          # CB_REDIS_URL, CB_NAMESPACE, CB_*
    payments = breakers["payments"]

    @payments
    def charge(card: str) -> str: ...              # raises CallNotPermittedError while the breaker is Open

For asyncio there is AsyncCircuitBreakers with the same surface. The names below are public; modules that begin with
an underscore may change.
"""

from circuitbreaker_client._async import AsyncCircuitBreaker, AsyncCircuitBreakers, AsyncPermit
from circuitbreaker_client._sync import CircuitBreaker, CircuitBreakers, Permit
from circuitbreaker_client.errors import (
    CallNotPermittedError,
    InvalidNameError,
    SettingsError,
    StoreUnavailableError,
)
from circuitbreaker_client.events import (
    CallRefused,
    Degraded,
    Event,
    EventHook,
    OutcomesDropped,
    Recovered,
    Source,
    StateChanged,
)
from circuitbreaker_client.health import CircuitBreakerHealth
from circuitbreaker_client.settings import Settings
from circuitbreaker_client.snapshots import BreakerSnapshot, BreakerStatistics
from circuitbreaker_contract.errors import CircuitBreakerError
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import Outcome, State

__all__ = [
    "AsyncCircuitBreaker",
    "AsyncCircuitBreakers",
    "AsyncPermit",
    "BreakerSnapshot",
    "BreakerStatistics",
    "CallNotPermittedError",
    "CallRefused",
    "CircuitBreaker",
    "CircuitBreakerError",
    "CircuitBreakerHealth",
    "CircuitBreakers",
    "Degraded",
    "Event",
    "EventHook",
    "InvalidNameError",
    "Outcome",
    "OutcomesDropped",
    "Permit",
    "Policy",
    "Recovered",
    "Settings",
    "SettingsError",
    "Source",
    "State",
    "StateChanged",
    "StoreUnavailableError",
]
