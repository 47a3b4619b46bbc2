"""The console scripts `kubectl-breaker` and `kubectl_complete-breaker`."""

from circuitbreaker_operator.extras import needed


def main() -> None:
    with needed("kubectl-breaker", "cli"):
        from circuitbreaker_cli import main as program  # noqa: PLC0415 - what may be missing

        program.main()  # imports what the command needs


def complete() -> None:
    with needed("kubectl_complete-breaker", "cli"):
        from circuitbreaker_cli import completion  # noqa: PLC0415

        completion.main()
