"""These tests want a node, which `make e2e` starts around them: without one there is nothing to collect."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster

collect_ignore_glob = [] if "CB_NODE" in os.environ else ["test_*.py"]


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The one node."""
    cluster = Cluster(Path(os.environ["KUBECONFIG"]))
    cluster.prepare()
    return cluster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A step that failed shows what was in the cluster: nobody can look afterwards."""
    report = yield
    if report.failed and "cluster" in item.funcargs:
        report.sections.append(("the cluster", item.funcargs["cluster"].look()))
    return report
