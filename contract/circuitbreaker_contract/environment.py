"""How texts of the environment are read, the same in operator and client. Durations: durations.py."""

import re
from typing import Final
from urllib.parse import urlsplit

from circuitbreaker_contract.policy import BOUNDS

PREFIX: Final = "CB_"
REDIS_URL_FORM: Final = "must look like redis://host:6379/0, or rediss://host:6379/0 for TLS"

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_DATABASE_FORM = re.compile(r"/?|/[0-9]{1,9}")


def parse_boolean(text: str) -> bool:
    """Raises ValueError for a word that is neither a yes nor a no."""
    word = text.strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError("must be one of true, 1, yes, on, false, 0, no, off")


def check_redis_url(text: str, *, host_needed: bool = True) -> str:
    """The URL itself. Raises ValueError; its text holds nothing of the URL, any part of which may be a password's."""
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError(REDIS_URL_FORM) from None
    if parts.scheme not in {"redis", "rediss"} or (host_needed and not parts.hostname):
        raise ValueError(REDIS_URL_FORM)
    try:
        port = parts.port
    except ValueError:  # its text has what stands there, which may be a piece of a password
        port = 0
    if port == 0:
        raise ValueError(f"{REDIS_URL_FORM}; its port must be a number from 1 to 65535")
    if not _DATABASE_FORM.fullmatch(parts.path):
        raise ValueError(f"{REDIS_URL_FORM}; what follows the host must be the number of a database, or nothing")
    return text


def variable_of(field: str) -> str:
    """The variable of a setting: `recovery_timeout_ms` -> `CB_RECOVERY_TIMEOUT`. A length's unit is in its value."""
    return PREFIX + field.removesuffix("_ms").upper()


POLICY_VARIABLES: Final = {field: variable_of(field) for field in BOUNDS}  # field of Policy -> variable
