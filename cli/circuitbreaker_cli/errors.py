"""What a command ends with when it cannot do its work."""

from circuitbreaker_cli.words import Exit
from circuitbreaker_contract.errors import CircuitBreakerError


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
