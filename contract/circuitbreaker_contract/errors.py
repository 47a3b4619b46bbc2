"""Errors of the contract, by who can do something about them.

A function of the library answers an error as `PREFIX text`; the prefixes are fixed and are all that a client may
branch on. `from_reply` turns such an answer into the exception here; any other error of Redis stays what it was.
"""

from typing import ClassVar


class CircuitBreakerError(Exception):
    """Base of all we raise on purpose; an error of redis-py stays in `__cause__`, it never crosses our API."""


class InvalidPolicyError(CircuitBreakerError, ValueError):
    """A policy has a value out of its bounds; the text names the field and the bounds."""


class ContractError(CircuitBreakerError):
    """A function of the library refused a call; `prefix` is the word that it answered with."""

    prefix: ClassVar[str] = ""

    @staticmethod
    def from_reply(text: str) -> "ContractError | None":
        """The exception for the text of an error reply, or None when it is not one of the library's."""
        word, _, rest = text.partition(" ")
        kind = _BY_PREFIX.get(word)
        return kind(rest) if kind else None


class UnknownBreakerError(ContractError):
    """No breaker is defined at that key: apply its CircuitBreaker, or define it with `cb_configure`."""

    prefix = "CBUNKNOWN"


class InvalidArgumentError(ContractError):
    """An argument does not have the form that the contract asks for; nothing was written."""

    prefix = "CBARG"


class OwnershipError(ContractError):
    """The breaker belongs to another installation (owner) or to another resource (uid); nothing was written."""

    prefix = "CBOWNER"


class VersionError(ContractError):
    """The library in Redis and the caller do not speak the same contract version."""

    prefix = "CBVERSION"


_BY_PREFIX: dict[str, type[ContractError]] = {
    kind.prefix: kind for kind in (UnknownBreakerError, InvalidArgumentError, OwnershipError, VersionError)
}
