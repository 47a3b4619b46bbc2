"""The operator: keeps breakers in Redis as the resources of a cluster say, and shows in the cluster what they do.

The public names are read when they are asked for: who needs the words alone (`kubectl breaker`) loads no Kopf.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuitbreaker_operator.app import Operator, running_operator
    from circuitbreaker_operator.settings import Settings

__all__ = ["Operator", "Settings", "running_operator"]


def __getattr__(name: str) -> Any:
    if name == "Settings":
        from circuitbreaker_operator.settings import Settings  # noqa: PLC0415

        return Settings
    if name in __all__:
        from circuitbreaker_operator import app  # noqa: PLC0415

        return getattr(app, name)
    raise AttributeError(name)
