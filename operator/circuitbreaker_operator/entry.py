"""The console script `circuitbreaker-operator`."""

from typing import NoReturn

from circuitbreaker_operator.extras import needed


def main() -> NoReturn:
    with needed("circuitbreaker-operator", "operator"):
        from circuitbreaker_operator import cli  # noqa: PLC0415 - what may be missing
    cli.main()
