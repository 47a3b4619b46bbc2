"""The matrix as a value: which faults happen to what, what has to be true meanwhile, and why the rest is left out."""

import os
from dataclasses import dataclass
from enum import Enum, auto

from tests.chaos import faults
from tests.chaos.faults import Fault, Roads

FULL = os.environ.get("CB_CHAOS") == "full"  # `make chaos`
TARGETS = ("API server", "etcd", "Redis", "operator", "clients")
FAULTS = (
    "stop",
    "kill",
    "pause",
    "restart",
    "empty",
    "slow",
    "half-open",
    "wrong credentials",
    "out of memory",
    "full disk",
)


class Clients(Enum):
    """What client processes act on while the fault lasts."""

    SHARED = auto()  # what Redis holds
    LATE = auto()  # the same for what needs no question; a question comes back too late and is decided alone
    ALONE = auto()  # each by itself
    FIRST_ALONE = auto()  # the first one by itself, the second by what Redis holds
    FIRST_GONE = auto()  # the first one calls no more


@dataclass(frozen=True)
class Cell:
    """A fault that happens to a target.

    `redis`, `api`: whether the operator can use them meanwhile; `runs`: whether it runs itself. `asks_api`: whether the
    test can write to the API server. `brief`: over before anything could be seen of it. `says`: what the operator's log
    has to hold, cause and remedy; `client_says`: that of each client that is hit. `refused`: why what is asked for
    meanwhile is not in force, as its condition says. `soon_seconds`: within which statuses agree with Redis afterwards,
    beside the sweep interval. `loses`: reports are lost, as they must be. `fails`: what does not hold.
    """

    target: str
    fault: str
    do: Fault
    roads: Roads = faults.direct
    clients: Clients = Clients.SHARED
    redis: bool = True
    api: bool = True
    runs: bool = True
    asks_api: bool = True
    brief: bool = False
    says: tuple[str, ...] = ()
    client_says: tuple[str, ...] = ()
    soon_seconds: float = 10.0
    refused: str = ""
    loses: bool = False
    fails: str = ""

    @property
    def name(self) -> str:
        return f"{self.target}: {self.fault}"


_NO_API = {"api": False, "asks_api": False, "says": ("API server at https://127.0.0.1", "check that it runs")}
_NO_REDIS = {"redis": False, "clients": Clients.ALONE, "client_says": ("Redis is silent",)}
_REDIS_GONE = {**_NO_REDIS, "says": ("Redis at redis://127.0.0.1", "clients go on with what they know")}
# A connection that nothing comes through is given up after 15 s; whoever waits for an answer on it learns it then.
_ANSWER_SECONDS = 30.0

CELLS = (
    Cell("API server", "stop", faults.api_server_stopped, **_NO_API),
    Cell("API server", "kill", faults.api_server_killed, **_NO_API),
    Cell("API server", "pause", faults.api_server_paused, **_NO_API, soon_seconds=_ANSWER_SECONDS),
    Cell("API server", "restart", faults.api_server_restarted, brief=True),
    Cell("API server", "slow", faults.slow, faults.to_api),
    Cell(
        "API server",
        "half-open",
        faults.half_open,
        faults.to_api,
        **{**_NO_API, "asks_api": True},
        soon_seconds=_ANSWER_SECONDS,
    ),
    Cell("API server", "wrong credentials", faults.token_refused, api=False, says=("Unauthorized", "check KUBECONFIG")),
    Cell("etcd", "stop", faults.etcd_stopped, **_NO_API, soon_seconds=_ANSWER_SECONDS),
    Cell("etcd", "kill", faults.etcd_killed, **_NO_API, soon_seconds=_ANSWER_SECONDS),
    Cell("etcd", "pause", faults.etcd_paused, **_NO_API, soon_seconds=_ANSWER_SECONDS),
    Cell("etcd", "restart", faults.etcd_restarted, brief=True),
    Cell("etcd", "slow", faults.slow, faults.to_etcd),
    # The API server itself notices a vanished etcd by a keepalive of 30 s and 10 s.
    Cell("etcd", "half-open", faults.half_open, faults.to_etcd, **_NO_API, soon_seconds=60.0),
    Cell(
        "etcd",
        "full disk",
        faults.etcd_full,
        api=False,
        asks_api=False,
        says=("writing to the API server", "database space exceeded", "etcd (its disk, its quota)"),
    ),
    Cell("Redis", "stop", faults.redis_stopped, **_REDIS_GONE),
    Cell("Redis", "kill", faults.redis_killed, **_REDIS_GONE),
    Cell("Redis", "pause", faults.redis_paused, **_REDIS_GONE),
    Cell("Redis", "restart", faults.redis_restarted, brief=True),
    Cell("Redis", "empty", faults.redis_emptied, brief=True, loses=True, says=("loaded the function library",)),
    Cell("Redis", "slow", faults.slow, faults.to_redis, clients=Clients.LATE),
    Cell("Redis", "half-open", faults.half_open, faults.to_redis, **_REDIS_GONE),
    Cell(
        "Redis",
        "wrong credentials",
        faults.logins_refused,
        **{**_NO_REDIS, "says": ("Redis refuses the login", "check the user in CB_REDIS_URL")},
    ),
    Cell(
        "Redis",
        "out of memory",
        faults.memory_full,
        clients=Clients.ALONE,
        client_says=("OOM",),
        refused="StoreConflict",
    ),
    Cell(
        "Redis",
        "full disk",
        faults.disk_full,
        **{**_NO_REDIS, "says": ("MISCONF", "make room on the disk of Redis")},
    ),
    Cell("operator", "stop", faults.operator_stopped, runs=False),
    Cell("operator", "kill", faults.operator_killed, runs=False),
    Cell("operator", "pause", faults.operator_paused, runs=False),
    Cell("operator", "restart", faults.operator_restarted, brief=True),
    Cell("clients", "stop", faults.client_stopped, clients=Clients.FIRST_GONE),
    Cell("clients", "kill", faults.client_killed, clients=Clients.FIRST_GONE, loses=True),
    Cell("clients", "pause", faults.client_paused, clients=Clients.FIRST_GONE),
    Cell("clients", "restart", faults.client_restarted, brief=True),
    Cell("clients", "slow", faults.slow, faults.first_to_redis),
    Cell(
        "clients",
        "half-open",
        faults.half_open,
        faults.first_to_redis,
        clients=Clients.FIRST_ALONE,
        client_says=("Redis is silent",),
    ),
    Cell(
        "clients",
        "wrong credentials",
        faults.first_login_refused,
        clients=Clients.FIRST_ALONE,
        client_says=("Redis is silent",),
    ),
)

_NOTHING_KEPT = "keeps nothing that could be emptied"
_FROM_OUTSIDE = "what it is asked for is not on anybody's way; that it is late or silent itself is `pause`"
LEFT_OUT = {
    ("API server", "empty"): "what it holds is etcd's",
    ("API server", "out of memory"): "the kernel ends it: `kill`",
    ("API server", "full disk"): "it writes nothing; its disk is etcd's",
    ("etcd", "empty"): "another cluster, with another owner of all breakers; a deleted CRD is a test of its own",
    ("etcd", "wrong credentials"): "only the API server logs in there, and answers the same as without etcd",
    ("etcd", "out of memory"): "the kernel ends it: `kill`",
    ("operator", "empty"): _NOTHING_KEPT,
    ("operator", "slow"): _FROM_OUTSIDE,
    ("operator", "half-open"): _FROM_OUTSIDE,
    ("operator", "wrong credentials"): "those it shows to others are their rows",
    ("operator", "out of memory"): "the kernel ends it: `kill`",
    ("operator", "full disk"): "writes nothing to a disk",
    ("clients", "empty"): _NOTHING_KEPT,
    ("clients", "out of memory"): "the kernel ends it: `kill`",
    ("clients", "full disk"): "write nothing to a disk",
}

# The most telling ones, for every run of the tests: data lost, silence, and the death of either side.
SHORT = (
    ("Redis", "pause"),
    ("Redis", "empty"),
    ("operator", "kill"),
    ("clients", "kill"),
)
