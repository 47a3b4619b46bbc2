"""The name that a host gets is one that Kubernetes has, the same in every client, and another for another host."""

import pytest

from circuitbreaker_client._hosts import breaker_of_host
from circuitbreaker_contract.keys import NAME_FORM

NAMES = {
    "a host": (("https", "api.example.com", None), "api.example.com"),
    "the scheme's own port is none": (("https", "api.example.com", 443), "api.example.com"),
    "the other scheme's port is one": (("https", "api.example.com", 80), "api.example.com-80"),
    "a port": (("http", "api.example.com", 8080), "api.example.com-8080"),
    "upper case": (("http", "API.Example.com", 80), "api.example.com"),
    "a trailing dot": (("http", "api.example.com.", 80), "api.example.com"),
    "IPv4": (("http", "127.0.0.1", 9000), "127.0.0.1-9000"),
    "IPv6": (("http", "[::1]", 80), "0000-0000-0000-0000-0000-0000-0000-0001"),
    "IPv6 with a zone": (("http", "fe80::1%eth0", 81), "fe80-0000-0000-0000-0000-0000-0000-0001-81"),
    "punycode": (("http", "xn--mnchen-3ya.de", None), "xn--mnchen-3ya.de"),
    "what no name holds": (("http", "my_service", None), "my-service"),
    "nothing": (("http", "", None), "unknown-host"),
}


@pytest.mark.parametrize(("host", "name"), NAMES.values(), ids=NAMES)
def test_name(host: tuple[str, str, int | None], name: str) -> None:
    assert breaker_of_host(*host) == name
    assert NAME_FORM.fullmatch(name)


def test_long_hosts_stay_apart() -> None:
    """What is cut off still tells two hosts apart."""
    common = "a-very-long-name-of-a-service.in-a-very-long-namespace.svc.cluster.local"
    names = {breaker_of_host("http", f"{common}.{zone}", None) for zone in ("east", "west")}
    assert len(names) == 2
    assert all(len(name) == 63 and NAME_FORM.fullmatch(name) for name in names)
