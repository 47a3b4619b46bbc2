"""What a module says when the library that it stands on is not installed."""


def missing(extra: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """One line that says what to do; to be raised `from None`."""
    return ModuleNotFoundError(
        f"circuitbreaker_client.{extra} needs the package {error.name}: pip install 'circuitbreakers[{extra}]'",
        name=error.name,
    )
