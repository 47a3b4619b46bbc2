"""Connections are given up when Redis comes back. A call just connecting ended the operator, by redis-py's
`'NoneType' object has no attribute 'writelines'`; so did the second of two giving up the same servers, by a KeyError.
"""

import asyncio

import redis

from circuitbreaker_local.redis_server import RedisServer
from circuitbreaker_local.waiting import wait_until
from circuitbreaker_operator.redis_settings import Address
from circuitbreaker_operator.servers import open_servers
from circuitbreaker_operator.settings import Settings

TURNS = 40  # of the loop: connecting and greeting take fewer


async def test_given_up_at_any_moment_of_a_call(redis_server: RedisServer) -> None:
    servers = open_servers(Settings(redis_url=redis_server.url), connections=2)
    answers = []
    for turns in range(TURNS):
        (address,) = await servers.locate()
        for call in (servers.at(address, "PING"), servers.pipeline([("PING",)])):
            task = asyncio.create_task(call)
            for _ in range(turns):
                await asyncio.sleep(0)
            await servers.renew()
            answers += await asyncio.gather(task, return_exceptions=True)
    await servers.aclose()
    assert answers == [True, [True]] * TURNS
    with redis.Redis.from_url(redis_server.url) as client:
        wait_until(lambda: len(client.client_list()) == 1, timeout_seconds=5, what="all connections to be closed")


async def test_two_give_up_the_same_servers(redis_server: RedisServer) -> None:
    """Several primaries of a Cluster changed: a look and a probe both find out."""
    servers = open_servers(Settings(redis_url=redis_server.url), connections=2)
    (address,) = await servers.locate()
    for host in ("localhost", "127.1", "127.0.1"):
        await servers.at(Address(host, address.port), "PING")
    assert await asyncio.gather(servers.locate(), servers.locate()) == [{address}, {address}]
    await servers.aclose()
    with redis.Redis.from_url(redis_server.url) as client:
        wait_until(lambda: len(client.client_list()) == 1, timeout_seconds=5, what="all connections to be closed")
