"""The loopback behind a proxy: NO_PROXY keeps what it says, and gains it."""

import urllib.request

import pytest

from circuitbreaker_local.loopback import reach_directly

CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "nothing is said": ({}, {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}),
    "nothing but empty words": (
        {"NO_PROXY": "", "no_proxy": ""},
        {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"},
    ),
    "in one spelling": (
        {"NO_PROXY": ".corp.example"},
        {"NO_PROXY": ".corp.example,127.0.0.1,localhost", "no_proxy": ".corp.example,127.0.0.1,localhost"},
    ),
    "in the other": (
        {"no_proxy": ".corp.example"},
        {"NO_PROXY": ".corp.example,127.0.0.1,localhost", "no_proxy": ".corp.example,127.0.0.1,localhost"},
    ),
    "in both, each for its programs": (
        {"NO_PROXY": "a.example", "no_proxy": "b.example"},
        {"NO_PROXY": "a.example,127.0.0.1,localhost", "no_proxy": "b.example,127.0.0.1,localhost"},
    ),
    "no proxy for anything": ({"NO_PROXY": "*"}, {"NO_PROXY": "*", "no_proxy": "*"}),
}


@pytest.mark.parametrize(("given", "expected"), CASES.values(), ids=CASES)
def test_what_is_left_out(given: dict[str, str], expected: dict[str, str]) -> None:
    environment = {"HTTP_PROXY": "http://proxy.example:3128"} | given
    reach_directly(environment)
    assert environment == {"HTTP_PROXY": "http://proxy.example:3128"} | expected
    proxies = {"no": environment["no_proxy"]}
    for host in ("127.0.0.1:6443", "localhost:8001"):
        assert urllib.request.proxy_bypass_environment(host, proxies)  # type: ignore[attr-defined]


def test_the_tests_are_so_themselves() -> None:
    """By the plugin, whatever the shell says that runs them."""
    assert urllib.request.proxy_bypass("127.0.0.1:1")
