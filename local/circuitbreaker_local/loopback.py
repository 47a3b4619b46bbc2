"""What listens on the loopback is reached directly, also where the environment names a proxy (HTTP_PROXY, HTTPS_PROXY).

Programs of Go keep to that by themselves; those of Python have to be told, by NO_PROXY.
"""

from collections.abc import MutableMapping
from typing import Final

LOOPBACK: Final = ("127.0.0.1", "localhost")
ALL: Final = "*"  # counts only where it is alone


def reach_directly(environment: MutableMapping[str, str]) -> None:
    """Adds the loopback to what NO_PROXY says, in both spellings: which one counts is up to the program."""
    upper, lower = environment.get("NO_PROXY"), environment.get("no_proxy")
    for name, given in (("NO_PROXY", upper or lower), ("no_proxy", lower or upper)):
        environment[name] = ALL if given == ALL else ",".join((*([given] if given else []), *LOOPBACK))
