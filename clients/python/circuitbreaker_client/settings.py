"""The client's settings: options by name, or the environment. Everything is checked at once, before anything is sent.

| option | variable | default |
|---|---|---|
| `redis_url` | `CB_REDIS_URL` | `redis://localhost:6379/0` |
| `redis_password_file` | `CB_REDIS_PASSWORD_FILE` | none |
| `redis_timeout_seconds` | `CB_REDIS_TIMEOUT` | 0.1: the longest that a call ever waits for Redis |
| `namespace` | `CB_NAMESPACE` | the pod's own namespace where its service account is mounted, else `default` |
| `key_prefix` | `CB_KEY_PREFIX` | `cb:` |
| `state_sync` | `CB_STATE_SYNC` | true; false keeps every breaker in this process and never connects |
| `define_missing` | `CB_DEFINE_MISSING` | false; true loads the library and defines unknown breakers with `policy` |
| `strict` | `CB_STRICT` | false; true asks Redis about every call, and raises when it does not answer |
| `flush_interval_seconds` | `CB_FLUSH_INTERVAL` | 0.05: outcomes are reported this often |
| `max_staleness_seconds` | `CB_MAX_STALENESS` | 10: a snapshot that is older is not believed |
| `max_breakers` | `CB_MAX_BREAKERS` | 1000: with more in use, the one unused for longest is forgotten |
| `policy` | `CB_FAILURE_THRESHOLD`, ... | 5 failures in a row, 30 s, 3 probes; only where Redis has told none |

A variable for a length is a duration (`1m30s`, `500ms`) or a bare whole number of seconds. An empty one is not set.
What looks like one of these with a typing error is said in the log.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Self, TypedDict, Unpack, cast

from circuitbreaker_client.errors import SettingsError
from circuitbreaker_contract.durations import parse_setting_ms
from circuitbreaker_contract.environment import POLICY_VARIABLES, check_redis_url, parse_boolean
from circuitbreaker_contract.errors import InvalidPolicyError
from circuitbreaker_contract.keys import DEFAULT_PREFIX, NAME_FORM, Keys
from circuitbreaker_contract.policy import BOUNDS, Mode, Policy

logger = logging.getLogger("circuitbreaker_client")

LONGEST_PATIENCE_SECONDS: Final = 1.0
NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# As the operator has them (operator/circuitbreaker_operator/settings.py); a test holds both equal.
DEFAULT_POLICY: Final = Policy(
    failure_threshold=5, recovery_timeout_ms=30_000, half_open_limit=3, success_threshold=3, probe_timeout_ms=30_000
)


class Options(TypedDict, total=False):
    """What can be given by name; see the table in `circuitbreaker_client.settings`."""

    redis_url: str
    redis_password_file: str | Path | None
    redis_timeout_seconds: float
    namespace: str
    key_prefix: str
    state_sync: bool
    define_missing: bool
    strict: bool
    flush_interval_seconds: float
    max_staleness_seconds: float
    max_breakers: int
    policy: Policy


@dataclass(frozen=True, slots=True)
class Settings:
    """Checked when built; raises SettingsError."""

    redis_url: str = field(default="redis://localhost:6379/0", repr=False)  # it may hold a password
    redis_password_file: str | Path | None = None
    redis_timeout_seconds: float = 0.1
    namespace: str = "default"
    key_prefix: str = DEFAULT_PREFIX
    state_sync: bool = True
    define_missing: bool = False
    strict: bool = False
    flush_interval_seconds: float = 0.05
    max_staleness_seconds: float = 10.0
    max_breakers: int = 1_000
    policy: Policy = DEFAULT_POLICY

    def __post_init__(self) -> None:
        wrong = [f"{name}: {text}" for name, text in self._wrong()]
        if wrong:
            raise SettingsError("\n".join(wrong))

    def _wrong(self) -> list[tuple[str, str]]:
        wrong: list[tuple[str, str]] = []
        for name, check in _CHECKS.items():
            try:
                check(getattr(self, name))
            except (ValueError, TypeError) as error:
                wrong.append((name, str(error)))
        if self.strict and not self.state_sync:
            wrong.append(("strict", "there is no Redis to ask with state_sync=False"))
        return wrong

    @property
    def keys(self) -> Keys:
        return Keys(self.key_prefix)

    @property
    def patience_seconds(self) -> float:
        """How long a connection may be without an answer before it is given up.

        Ten times what a call waits by default: a server that shares its processor with a busy fleet is late now and
        then, and fifty clients that all come anew keep it from getting well.
        """
        return max(self.redis_timeout_seconds, min(LONGEST_PATIENCE_SECONDS, self.max_staleness_seconds / 4))

    @classmethod
    def of(cls, **options: Unpack[Options]) -> Self:
        """From options by name; the pod's own namespace where none is given."""
        options.setdefault("namespace", own_namespace())
        return cls(**options)

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None, **options: Unpack[Options]) -> Self:
        """From the environment; an option given by name wins. Raises SettingsError, a line for each wrong variable."""
        given = os.environ if environment is None else environment
        found = {name: text.strip() for name, text in given.items() if text.strip()}
        values: dict[str, Any] = {}
        wrong: list[str] = []
        for name, (variable, read) in _VARIABLES.items():
            if variable in found and name not in options:
                try:
                    values[name] = read(found[variable])
                    if name in _CHECKS:
                        _CHECKS[name](values[name])
                except ValueError as error:
                    wrong.append(f"{variable}: {error}")
        if "policy" not in options:
            values["policy"] = _policy(found, wrong)
        if wrong:
            raise SettingsError("\n".join(wrong))
        for sentence in _typing_errors(found):
            logger.warning(sentence)
        return cls.of(**cast("Options", {**values, **options}))


def own_namespace() -> str:
    """The namespace of the pod we run in, else `default`."""
    try:
        name = NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    except OSError:
        return "default"
    return name if NAME_FORM.fullmatch(name) else "default"


def _policy(found: Mapping[str, str], wrong: list[str]) -> Policy:
    values: dict[str, Any] = {each.name: getattr(DEFAULT_POLICY, each.name) for each in fields(Policy)}
    values |= {"window_ms": 0, "minimum_calls": 0}
    given: dict[str, Any] = {}
    for name, variable in POLICY_VARIABLES.items():
        if variable in found:
            bounds = BOUNDS[name]
            try:
                given[name] = (parse_setting_ms if name.endswith("_ms") else _whole)(found[variable])
            except ValueError as error:
                wrong.append(f"{variable}: {error}")
            else:
                if not bounds.low <= given[name] <= bounds.high:
                    unit = " ms" * name.endswith("_ms")
                    wrong.append(f"{variable}: must be from {bounds.low} to {bounds.high}{unit}")
    given.setdefault("success_threshold", given.get("half_open_limit", DEFAULT_POLICY.success_threshold))
    if mode := found.get("CB_MODE"):
        if mode in set(Mode):
            given["mode"] = Mode(mode)
        else:
            wrong.append("CB_MODE: must be Enforce or Observe")
    if wrong:
        return DEFAULT_POLICY
    try:
        return Policy(**{**values, **given})
    except InvalidPolicyError as error:
        wrong.append(_in_variables(str(error)))
        return DEFAULT_POLICY


def _typing_errors(found: Mapping[str, str]) -> Iterator[str]:
    known = {variable for variable, _ in _VARIABLES.values()} | {*POLICY_VARIABLES.values(), "CB_MODE"}
    for name in found:
        if name.startswith("CB_") and name not in known and name != _OF_THE_OPERATOR:
            for near in get_close_matches(name, known, n=1, cutoff=0.85):
                yield f"{name} is not a setting of the client; {near} is"


def _in_variables(text: str) -> str:
    """A complaint in the names of the environment."""
    for name, bounds in sorted(BOUNDS.items(), key=lambda each: -len(each[1].name)):
        text = text.replace(bounds.name, POLICY_VARIABLES[name])
    return text


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def _seconds(text: str) -> float:
    return parse_setting_ms(text) / 1_000


def _between(low: float, high: float) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"must be from {low:g} to {high:g}")

    return check


def _check_namespace(value: Any) -> None:
    if not isinstance(value, str) or not NAME_FORM.fullmatch(value):
        raise ValueError(f"{value!r} is no name of a namespace")


def _check_password_file(value: Any) -> None:
    if value is not None and not Path(value).is_file():
        raise ValueError(f"no file at {value}")


def _check_policy(value: Any) -> None:
    if not isinstance(value, Policy):
        raise TypeError("must be a Policy")


_CHECKS: Final[Mapping[str, Callable[[Any], object]]] = {
    "redis_url": check_redis_url,
    "redis_password_file": _check_password_file,
    "redis_timeout_seconds": _between(0.001, 60),
    "namespace": _check_namespace,
    "key_prefix": Keys,
    "flush_interval_seconds": _between(0.001, 10),
    "max_staleness_seconds": _between(0.1, 3_600),
    "max_breakers": _between(1, 1_000_000),
    "policy": _check_policy,
}
_OF_THE_OPERATOR: Final = "CB_NAMESPACES"  # the one that looks like one of ours
_VARIABLES: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "redis_url": ("CB_REDIS_URL", str),
    "redis_password_file": ("CB_REDIS_PASSWORD_FILE", Path),
    "redis_timeout_seconds": ("CB_REDIS_TIMEOUT", _seconds),
    "namespace": ("CB_NAMESPACE", str),
    "key_prefix": ("CB_KEY_PREFIX", str),
    "state_sync": ("CB_STATE_SYNC", parse_boolean),
    "define_missing": ("CB_DEFINE_MISSING", parse_boolean),
    "strict": ("CB_STRICT", parse_boolean),
    "flush_interval_seconds": ("CB_FLUSH_INTERVAL", _seconds),
    "max_staleness_seconds": ("CB_MAX_STALENESS", _seconds),
    "max_breakers": ("CB_MAX_BREAKERS", _whole),
}
