"""A node of a Redis Cluster: its own breakers are shared, those of other nodes are decided by each process alone."""

from pathlib import Path

from circuitbreaker_client import CircuitBreakers
from circuitbreaker_client.events import Source
from circuitbreaker_contract.state import Projection
from circuitbreaker_local.redis_cluster import RedisCluster
from tests.client.world import until
from tests.contract.callers import Caller, load

NAMES = [f"service-{number}" for number in range(12)]


def told(messages: list[str]) -> set[str]:
    """The breakers that a warning calls elsewhere."""
    return {text.split(":")[0].split("/")[1] for text in messages if "another node of a Redis Cluster" in text}


def test_a_breaker_of_another_node_is_said_to_be_elsewhere(redis_server_binary: Path, caplog) -> None:
    with RedisCluster(redis_server_binary) as cluster, cluster.client(decode_responses=True) as client:
        load(client)
        there = set()
        for name in NAMES:
            caller = Caller(client, name)
            caller.define(project=Projection.MESSAGES)
            if client.get_node_from_key(caller.key).port == cluster.nodes[0].port:
                there.add(name)
        with CircuitBreakers(redis_url=cluster.nodes[0].url, namespace="demo") as breakers:
            assert [breakers[name].call(int) for name in NAMES] == [0] * len(NAMES)
            elsewhere = {name for name in NAMES if name not in there}
            until(lambda: told(caplog.messages) == elsewhere, "a warning of each that is elsewhere")
            until(
                lambda: {name for name in NAMES if breakers[name].snapshot().source is Source.SHARED} == there,
                "the others to be shared",
            )
        assert there
        assert elsewhere
