"""Where the API server answered to reads and refused to write, its outage began and ended with each request."""

import json

from circuitbreaker_local.control_plane import ControlPlane
from tests.chaos.faults import etcd_writes_nothing
from tests.cluster.world import World


def test_reads_do_not_end_an_outage_of_writes(world: World, control_plane: ControlPlane) -> None:
    """An etcd that is full: the sweep goes on listing, and statuses wait."""
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments", recoveryTimeout="1h")
        world.until_ready("payments")
        with etcd_writes_nothing(control_plane):
            world.fleet("payments").open()
            world.until(lambda: "database space exceeded" in operator.log, "the log to say it")
            sweeps = "circuitbreaker_operator_sweeps_total"
            before = operator.metric(sweeps)
            world.until(lambda: (operator.metric(sweeps) or 0) >= before + 3, "some sweeps that read")
            health = json.loads(operator.get("/health")[1])["metrics"]
            assert health["components"]["kubernetes"]["status"] == "down"
            assert operator.log.count("database space exceeded") == 1
            assert "works again" not in operator.log
        world.until_state("payments", "Open")
        world.until(lambda: "works again" in operator.log, "the log to say that it is over")
