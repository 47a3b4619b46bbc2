"""An annotation that Kopf takes for its own, with garbage in it, hid every later event of the resource.

Kopf read it as JSON with each event, threw the event away, paused for longer each time, and the watch of all resources
was taken for dead.
"""

from tests.cluster.world import World

ANNOTATION = "circuitbreaker.dev/last-handled-configuration"


def test_garbage_in_the_annotation_hides_no_event(world: World) -> None:
    # No sweep comes to help within this test.
    with world.operator(SWEEP_INTERVAL="1h") as operator:
        operator.wait_ready()
        for number in range(3):
            world.create(f"b{number}", annotations={ANNOTATION: "{ no json"})
        world.until_ready("b0", "b1", "b2")
        world.patch("b0", {"spec": {"failureThreshold": 7}})
        world.until(lambda: world.fleet("b0").observe().policy.failure_threshold == 7, "the edit", 5)
        assert "Throttling" not in operator.log
