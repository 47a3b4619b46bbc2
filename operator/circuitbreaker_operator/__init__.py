"""The operator: keeps breakers in Redis as the resources of a cluster say, and shows in the cluster what they do."""

from circuitbreaker_operator.app import Operator, running_operator
from circuitbreaker_operator.settings import Settings

__all__ = ["Operator", "Settings", "running_operator"]
