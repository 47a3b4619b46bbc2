"""What a command ends with when it cannot do its work: an exit code, and an error that bears it."""

from enum import IntEnum

from circuitbreaker_contract.errors import CircuitBreakerError


class Exit(IntEnum):
    """What the process ends with; docs/cli.md has the same table, and a test holds both equal."""

    FINE = 0
    FAILURE = 1  # the API server or Redis refused, or could not be reached; `doctor` found a problem
    USAGE = 2  # the command line, a setting, or a file that is named there, cannot be understood
    DECLINED = 3  # nobody said yes, or there was no terminal to ask at
    NO_EFFECT = 4  # nothing was written: it would have no effect now, or what was agreed to is not so any more
    NOT_YET = 5  # it was written, and was not in force in time, or no more
    UNEXPECTED = 6  # `simulate`: it came otherwise than --expect says
    INTERRUPTED = 130  # Ctrl-C, as shells have it: 128 and the number of the signal
    TERMINATED = 143  # SIGTERM


class CommandError(CircuitBreakerError):
    """Ends the command with a message, which is safe to print, and an exit code."""

    def __init__(self, message: str, code: Exit = Exit.FAILURE) -> None:
        super().__init__(message)
        self.code = code


class KubectlError(CommandError):
    """kubectl ended badly; the message is what it said."""

    @property
    def not_found(self) -> bool:
        return "NotFound" in str(self)


class ConflictError(KubectlError):
    """Somebody else was faster: what should be written is there in another version, or made anew."""
