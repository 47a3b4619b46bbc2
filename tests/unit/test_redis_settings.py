"""Where Redis is and how it is reached: what goes together, and what stops the start."""

from pathlib import Path

import pytest

from circuitbreaker_contract.state import Projection
from circuitbreaker_operator.errors import SettingsError
from circuitbreaker_operator.redis_settings import Address, endpoint
from circuitbreaker_operator.servers import OfCluster, OfSentinels, Standalone, open_servers
from circuitbreaker_operator.settings import Settings


@pytest.fixture(autouse=True)
def _a_folder_with_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("no PEM", encoding="utf-8")


SENTINEL = {"CB_REDIS_SENTINEL": "s1:26379, [::1]:7,s3", "CB_REDIS_SENTINEL_MASTER": "breakers"}

WRONG = {
    "sentinels without a name": ({"CB_REDIS_SENTINEL": "s1:1"}, "CB_REDIS_SENTINEL_MASTER: is needed with"),
    "a name without sentinels": (
        {"CB_REDIS_SENTINEL_MASTER": "x"},
        "CB_REDIS_SENTINEL_MASTER: means nothing without CB_REDIS_SENTINEL",
    ),
    "a password of no sentinels": (
        {"CB_REDIS_SENTINEL_PASSWORD_FILE": "file"},
        "CB_REDIS_SENTINEL_PASSWORD_FILE: means nothing without CB_REDIS_SENTINEL",
    ),
    "sentinels and a host": (SENTINEL | {"CB_REDIS_URL": "redis://redis"}, "CB_REDIS_URL: must have no host"),
    "sentinels of a cluster": (SENTINEL | {"CB_REDIS_CLUSTER": "true"}, "CB_REDIS_CLUSTER: a Cluster has no sentinels"),
    "a sentinel without a host": (
        {"CB_REDIS_SENTINEL": ":26379"},
        "CB_REDIS_SENTINEL: must be host:port, with commas between them",
    ),
    "a sentinel with a scheme": (
        {"CB_REDIS_SENTINEL": "redis://s1:26379"},
        "CB_REDIS_SENTINEL: must be host:port, with commas between them",
    ),
    "a sentinel's port out of range": (
        {"CB_REDIS_SENTINEL": "s1:99999"},
        "CB_REDIS_SENTINEL: must be host:port, with commas between them",
    ),
    "a user without a password": (
        SENTINEL | {"CB_REDIS_SENTINEL_USER": "x"},
        "CB_REDIS_SENTINEL_USER: is of no use without CB_REDIS_SENTINEL_PASSWORD_FILE",
    ),
    "a database of a cluster": (
        {"CB_REDIS_CLUSTER": "yes", "CB_REDIS_URL": "redis://redis/3"},
        "CB_REDIS_URL: a Redis Cluster has no databases besides 0",
    ),
    "two passwords": (
        {"CB_REDIS_URL": "redis://:x@redis", "CB_REDIS_PASSWORD_FILE": "file"},
        "CB_REDIS_PASSWORD_FILE: there is a password in CB_REDIS_URL too",
    ),
    "an authority without TLS": ({"CB_REDIS_CA_FILE": "file"}, "CB_REDIS_CA_FILE: is for TLS"),
    "a check without TLS": ({"CB_REDIS_VERIFY": "ca"}, "CB_REDIS_VERIFY: is for TLS"),
    "a check that is none": (
        {"CB_REDIS_URL": "rediss://redis", "CB_REDIS_VERIFY": "sure"},
        "CB_REDIS_VERIFY: must be 'full', 'ca' or 'none' (it is 'sure')",
    ),
    "an authority that nobody asks": (
        {"CB_REDIS_URL": "rediss://redis", "CB_REDIS_VERIFY": "none", "CB_REDIS_CA_FILE": "file"},
        "CB_REDIS_VERIFY: none looks at no certificate",
    ),
    "a certificate without its key": (
        {"CB_REDIS_URL": "rediss://redis", "CB_REDIS_CERT_FILE": "file"},
        "CB_REDIS_KEY_FILE: is needed with CB_REDIS_CERT_FILE",
    ),
    "a key without its certificate": (
        {"CB_REDIS_URL": "rediss://redis", "CB_REDIS_KEY_FILE": "file"},
        "CB_REDIS_CERT_FILE: is needed with CB_REDIS_KEY_FILE",
    ),
    "no authority in the file": (
        {"CB_REDIS_URL": "rediss://redis", "CB_REDIS_CA_FILE": "file"},
        "CB_REDIS_CA_FILE: no certificates in PEM at file",
    ),
    "no certificate in the file": (
        {"CB_REDIS_URL": "rediss://redis", "CB_REDIS_CERT_FILE": "file", "CB_REDIS_KEY_FILE": "file"},
        "CB_REDIS_CERT_FILE: no certificate and its unencrypted key in PEM at file and file",
    ),
    "a file that is not there": (
        {"CB_REDIS_URL": "rediss://redis", "CB_REDIS_CA_FILE": "nowhere"},
        "CB_REDIS_CA_FILE: no file at nowhere",
    ),
}


@pytest.mark.parametrize(("environment", "complaint"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_together(monkeypatch, environment: dict[str, str], complaint: str) -> None:
    """One line, that names the variable to change."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        Settings.load()
    assert str(raised.value).startswith(complaint)
    assert "\n" not in str(raised.value)


async def test_the_servers_that_follow(monkeypatch) -> None:
    """Which kind, at which address, as whom; and who keeps the shared hash."""
    monkeypatch.setenv("CB_REDIS_URL", "rediss://us%40er:pass%2Fword@redis/2")
    alone = Settings.load()
    assert endpoint(alone) == (Address("redis", 6379), True, "us@er", "pass/word", 2)
    assert isinstance(open_servers(alone, connections=1), Standalone)
    assert alone.projection is Projection.SHARED

    monkeypatch.setenv("CB_REDIS_URL", "rediss://user@/2")
    for name, value in SENTINEL.items():
        monkeypatch.setenv(name, value)
    watched = Settings.load()
    assert watched.redis_sentinel == (("s1", 26379), ("::1", 7), ("s3", 26379))
    assert watched.redis_address == "breakers of the sentinels s1:26379, [::1]:7, s3:26379"
    assert endpoint(watched)[2:] == ("user", None, 2)
    assert isinstance(open_servers(watched, connections=1), OfSentinels)
    assert watched.projection is Projection.SHARED

    for name in SENTINEL:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CB_REDIS_URL", "redis://redis")
    monkeypatch.setenv("CB_REDIS_CLUSTER", "true")
    of_many = Settings.load()
    assert isinstance(open_servers(of_many, connections=1), OfCluster)
    assert of_many.projection is Projection.MESSAGES
    monkeypatch.setenv("CB_REDIS_CLUSTER", "false")
    monkeypatch.setenv("CB_ISOLATED_NAMESPACES", "true")
    assert Settings.load().projection is Projection.MESSAGES


def test_sentinels_need_no_url(monkeypatch) -> None:
    """The default URL has a host, which then means nothing."""
    for name, value in SENTINEL.items():
        monkeypatch.setenv(name, value)
    assert endpoint(Settings.load()).address.host == ""
