"""The fixtures of tests/cluster, for faults that take a cluster to show."""

from tests.cluster.conftest import breaker_crd, world

__all__ = ["breaker_crd", "world"]
