"""What an implementation offers so that scenarios can be played on it."""

from collections.abc import Mapping
from typing import Any, Protocol

from circuitbreaker_contract.errors import CircuitBreakerError
from circuitbreaker_contract.keys import Keys


class UnexpectedReplyError(CircuitBreakerError):
    """A call was answered with an error that the contract does not know."""


class Store(Protocol):
    """Breakers behind the functions of the contract, at a time that is set. A scenario begins with an empty one.

    For Redis there is `RedisStore`. The author of a client or of a port writes another: `execute` translates the
    command into whatever the implementation understands, and its answer back into the reply of contract/README.md.
    """

    def execute(self, *command: str | int) -> Any:
        """Runs `FCALL function 1 key arg ...` (`FCALL_RO` where nothing is written) and returns the reply.

        Lists, integers and str (or bytes) as Redis would give them. A refusal is raised as the ContractError of its
        prefix, any other error as UnexpectedReplyError; both count as an answer. What else is raised ends the play.
        """
        ...

    def set_clock(self, now_ms: int) -> None:
        """From now on it is `now_ms`, in ms since the Unix epoch; it may be earlier than before."""
        ...

    def states(self, keys: Keys) -> Mapping[str, str]:
        """The shared hash `keys.states`: `namespace/name` -> state."""
        ...

    def messages(self) -> list[dict[str, Any]]:
        """What the shared channel has said since the last call, oldest first, each message decoded from its JSON."""
        ...
