"""The resource kind goes, with all breakers, and comes back."""

from circuitbreaker_local.control_plane import ControlPlane
from tests.cluster.conftest import install_crd
from tests.cluster.world import World

CRD = "circuitbreakers.circuitbreaker.dev"


def test_the_resource_kind_goes_and_comes_back(world: World, plane: ControlPlane) -> None:
    """Its breakers go with it; readiness says that it is missing; new ones are served when it is back."""
    with world.operator() as operator:
        operator.wait_ready()
        for name in ("payments", "search"):
            world.create(name, recoveryTimeout="1h")
        world.until_ready("payments", "search")
        world.fleet("payments").open()
        world.until_state("payments", "Open")
        try:
            plane.kubectl("delete", "crd", CRD)
            for name in ("payments", "search"):
                world.until(lambda name=name: not world.keys_of(name), f"the keys of {name} to go")
                assert world.shown(name) is None
            world.until(lambda: not operator.ready, "readiness to tell", 40)
            assert "[-] crd" in operator.get("/readyz")[1]
            assert operator.get("/healthz")[0] == 200
            world.until(lambda: f"{CRD} is missing" in operator.log, "the log to say it")
            assert operator.log.count(f"{CRD} is missing") == 1
        finally:
            install_crd(plane)
        world.until(lambda: operator.ready, "readiness to come back", 30)
        world.whole_life("orders")
