"""An API server that refused the login (401) was said for each breaker and each attempt, and counted as up."""

import json

from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.kubeconfig import write_kubeconfig
from tests.cluster.test_hostile_input import uptime
from tests.cluster.world import World


def test_it_is_one_outage_with_its_own_remedy(world: World, control_plane: ControlPlane) -> None:
    world.credentials = world.folder / "wrong.kubeconfig"
    write_kubeconfig(world.credentials, control_plane.api_server.reach(), user="admin", token="wrong")
    with world.operator() as operator:
        world.until(lambda: "401 Unauthorized" in operator.log, "the log to say it")
        world.until(lambda: uptime(operator) >= 3, "some more attempts")
        assert operator.log.count("401") == 1
        assert "check KUBECONFIG or the service account's token" in operator.log
        assert operator.get("/healthz")[0] == 200
        assert not operator.ready
        assert json.loads(operator.get("/health")[1])["metrics"]["components"]["kubernetes"]["status"] == "down"
