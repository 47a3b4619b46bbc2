"""The environment, read once at the start. Nothing else in the operator looks at os.environ.

Each variable is one field; its description, default and bounds are what `--help` prints. A value that cannot be read
stops the start with one line that names the variable, what was found and what would be right. A variable that starts
with CB_ and that nobody knows is most likely a typing error, so it is said once (`unknown_variables`).
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from circuitbreaker_contract.durations import format_duration, parse_setting_ms
from circuitbreaker_contract.environment import POLICY_VARIABLES, PREFIX, parse_boolean, variable_of
from circuitbreaker_contract.keys import DEFAULT_PREFIX, NAME_FORM, Keys
from circuitbreaker_contract.policy import BOUNDS
from circuitbreaker_contract.state import Projection
from circuitbreaker_operator.errors import SettingsError
from circuitbreaker_operator.redis_settings import Address, addresses, checked_url, contradictions, endpoint

# Read by other parts of the product; not ours, and no mistake.
_OF_THE_CLIENT = {
    *("CB_NAMESPACE", "CB_STATE_SYNC", "CB_DEFINE_MISSING", "CB_STRICT", "CB_MODE"),
    *("CB_FLUSH_INTERVAL", "CB_MAX_STALENESS", "CB_MAX_BREAKERS", *POLICY_VARIABLES.values()),
}
KNOWN_ELSEWHERE = frozenset({"CB_CACHE_DIR", "CB_CHROMIUM", "CB_REDIS_SERVER"} | _OF_THE_CLIENT)
_HOST_FORM = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_OWNER_FORM = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def _boolean(value: object) -> object:
    return value if isinstance(value, bool) else parse_boolean(str(value))


def _milliseconds(value: object) -> object:
    """A duration or whole seconds as text. A number is milliseconds already: that is how Python code gives it."""
    return parse_setting_ms(value.strip()) if isinstance(value, str) else value


def _names(value: object) -> object:
    if not isinstance(value, str):
        return value
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    if wrong := [name for name in names if not NAME_FORM.fullmatch(name)]:
        raise ValueError(
            f"{wrong[0]!r} is no name of a namespace; give names with commas between them, or none for all"
        )
    return names


def _hosts(value: object) -> object:
    if not isinstance(value, str):
        return value
    names = tuple(name.strip().lower() for name in value.split(",") if name.strip())
    if wrong := [name for name in names if not _HOST_FORM.fullmatch(name)]:
        raise ValueError(f"{wrong[0]!r} is no name of a host; give names without scheme and port, commas between them")
    return names


@dataclass(frozen=True, slots=True)
class FromTo:
    """The bounds of a length, both included."""

    low_ms: int
    high_ms: int

    def __str__(self) -> str:
        return f"from {format_duration(self.low_ms)} to {format_duration(self.high_ms)}"

    def __call__(self, value: int) -> int:
        if not self.low_ms <= value <= self.high_ms:
            raise ValueError(f"must be {self}")
        return value


def _from_to(low_ms: int, high_ms: int) -> AfterValidator:
    return AfterValidator(FromTo(low_ms, high_ms))


def _length(field: str) -> AfterValidator:
    bounds = BOUNDS[field]
    return _from_to(bounds.low, bounds.high)


def _whole(field: str, *, low: int | None = None) -> Any:
    """The bounds that the contract has; `low` where a default may not be as low as a policy's number."""
    bounds = BOUNDS[field]
    return Field(ge=bounds.low if low is None else low, le=bounds.high)


def _prefix(value: str) -> str:
    Keys(value)
    return value


def _owner(value: str) -> str:
    if value and not _OWNER_FORM.fullmatch(value):
        raise ValueError("must be 1 to 64 of A-Z, a-z, 0-9 and '_.:-'")
    return value


def _auto(value: object) -> object:
    word = str(value).strip().lower()
    if word == "auto":
        return word
    try:
        return str(_boolean(value)).lower()
    except ValueError:
        raise ValueError("must be auto, true or false") from None


def _object_name(value: str) -> str:
    if value and not NAME_FORM.fullmatch(value):
        raise ValueError("must be a name as Kubernetes has them: a-z, 0-9 and '-'")
    return value


def _whole_seconds(value: int) -> int:
    if value % 1000:
        raise ValueError("must be whole seconds, as a Lease has them")
    return value


def _lease_contradictions(settings: "Settings") -> Iterable[tuple[str, str]]:
    """(field, what is wrong): a leader has to stop before others may start, and to have tried more than once."""
    if settings.lease_renew_deadline_ms >= settings.lease_duration_ms:
        yield "lease_renew_deadline_ms", "must be shorter than CB_LEASE_DURATION"
    if settings.lease_retry_ms * 2 > settings.lease_renew_deadline_ms:
        yield "lease_retry_ms", "must be at most half of CB_LEASE_RENEW_DEADLINE"


Boolean = Annotated[bool, BeforeValidator(_boolean)]
Duration = Annotated[int, BeforeValidator(_milliseconds)]
_DAY_MS = 86_400_000


class Settings(BaseSettings):
    """What can be set. Durations are milliseconds here, and durations or bare seconds in the environment."""

    model_config = SettingsConfigDict(
        alias_generator=variable_of,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        validate_default=True,
        env_ignore_empty=True,  # an empty variable in a manifest means "not set"
    )

    redis_url: Annotated[SecretStr, AfterValidator(checked_url)] = Field(
        default=SecretStr("redis://localhost:6379/0"),
        description="Where Redis (7.0 or later) or Valkey (7.2 or later) is: redis://user:password@host:port/database, "
        "of which only the host is needed; rediss:// speaks TLS. With CB_REDIS_SENTINEL it has no host: "
        "redis://user:password@/database.",
    )
    redis_cluster: Boolean = Field(
        default=False, description="Whether CB_REDIS_URL is a node of a Redis Cluster; it tells of the others."
    )
    redis_sentinel: Annotated[tuple[Address, ...], NoDecode, BeforeValidator(addresses)] = Field(
        default=(),
        description="The sentinels that know where the primary is: host:port with commas between them.",
    )
    redis_sentinel_master: str = Field(
        default="", description="The name that the sentinels have for the primary and its replicas."
    )
    redis_sentinel_user: str = Field(
        default="", description="The user at the sentinels; the default one when left out."
    )
    redis_sentinel_password_file: Path | None = Field(
        default=None, description="A file with the password of the sentinels, read at each connection."
    )
    redis_password_file: Path | None = Field(
        default=None,
        description="A file with the password of Redis, read at each connection, so that it may be changed at any "
        "time; better than a password in the URL.",
    )
    redis_ca_file: Path | None = Field(
        default=None,
        description="With rediss://: certificates (PEM) of the authorities that sign the servers' certificates; "
        "the system's when left out.",
    )
    redis_cert_file: Path | None = Field(
        default=None, description="With rediss://: the certificate (PEM) that the operator shows to the servers."
    )
    redis_key_file: Path | None = Field(
        default=None, description="The private key (PEM, not encrypted) of CB_REDIS_CERT_FILE."
    )
    redis_verify: Literal["full", "ca", "none"] = Field(
        default="full",
        description="With rediss://: what a server's certificate has to prove. full: an authority and the host's name; "
        "ca: an authority only; none: nothing, which anybody on the way can abuse.",
    )
    redis_timeout_ms: Annotated[Duration, _from_to(10, 60_000)] = Field(
        default=2_000, description="How long one answer of Redis may take."
    )
    key_prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        default=DEFAULT_PREFIX,
        description="What the names of all keys begin with. Another prefix keeps two installations in one Redis apart.",
    )
    isolated_namespaces: Boolean = Field(
        default=False,
        description="Whether applications of one namespace are kept from hearing of others: changes are also published "
        "on circuit_breaker_updates:<namespace>, and only the operator writes circuit_breaker_states.",
    )
    owner: Annotated[str, AfterValidator(_owner)] = Field(
        default="",
        description="Whose breakers these are in Redis; the uid of the namespace kube-system when left out. "
        "Only keys of this owner are ever changed or removed.",
    )
    namespaces: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = Field(
        default=(), description="The namespaces to serve, with commas between them; all when left out."
    )
    failure_threshold: Annotated[int, _whole("failure_threshold", low=1)] = Field(
        default=5, description="Default of spec.failureThreshold: consecutive failures that open a breaker."
    )
    recovery_timeout_ms: Annotated[Duration, _length("recovery_timeout_ms")] = Field(
        default=30_000, description="Default of spec.recoveryTimeout: how long Open lasts before HalfOpen."
    )
    half_open_limit: Annotated[int, _whole("half_open_limit")] = Field(
        default=3, description="Default of spec.halfOpenLimit: probes in flight at once over the whole fleet."
    )
    success_threshold: Annotated[int, _whole("success_threshold")] | None = Field(
        default=None,
        description="Default of spec.successThreshold: probe successes that close a breaker; "
        "the resource's halfOpenLimit when left out.",
    )
    probe_timeout_ms: Annotated[Duration, _length("probe_timeout_ms")] = Field(
        default=30_000, description="Default of spec.probeTimeout: how long a probe may take before its slot is free."
    )
    status_qps: Annotated[float, Field(ge=0.1, le=10_000)] = Field(
        default=100.0,
        description="How many statuses a second are written to the API server at most, over all breakers; twice as "
        "many at once after a rest.",
    )
    status_refresh_ms: Annotated[Duration, _from_to(0, _DAY_MS)] = Field(
        default=60_000,
        description="How often the counters in a status are written when they moved; 0 writes them only with a "
        "transition. Each write costs every watcher of the resource; metrics carry the same numbers.",
    )
    sweep_interval_ms: Annotated[Duration, _from_to(1_000, _DAY_MS)] = Field(
        default=60_000, description="How often keys in Redis and resources in the API server are compared as a whole."
    )
    leader_election: Annotated[Literal["auto", "true", "false"], BeforeValidator(_auto)] = Field(
        default="auto",
        description="Whether replicas choose one that works by a Lease, and the others stand by: true, false, or auto, "
        "which is true in a pod (even a single replica has two for a moment in a rolling update) and false elsewhere.",
    )
    lease_name: Annotated[str, AfterValidator(_object_name)] = Field(
        default="circuitbreaker-operator",
        description="The Lease. Two installations in one namespace need two.",
    )
    lease_namespace: Annotated[str, AfterValidator(_object_name)] = Field(
        default="", description="The namespace of the Lease; the pod's when left out."
    )
    lease_duration_ms: Annotated[Duration, _from_to(1_000, 3_600_000), AfterValidator(_whole_seconds)] = Field(
        default=15_000,
        description="How long a lease lasts that is not renewed: after a crash nobody works for about that long. In "
        "whole seconds.",
    )
    lease_renew_deadline_ms: Annotated[Duration, _from_to(100, 3_600_000)] = Field(
        default=10_000,
        description="A leader that cannot renew its lease for so long stops; shorter than CB_LEASE_DURATION.",
    )
    lease_retry_ms: Annotated[Duration, _from_to(50, 600_000)] = Field(
        default=2_000,
        description="How often the lease is renewed; standbys look twice as often. At most half of "
        "CB_LEASE_RENEW_DEADLINE.",
    )
    http_host: str = Field(default="0.0.0.0", description="The address that metrics and health are served on.")  # noqa: S104 # a pod's probes come from outside of it
    http_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        default=8_000, description="The port that metrics and health are served on; 0 takes any free one."
    )
    web: Boolean = Field(
        default=True,
        description="Whether the page for people is served at / beside metrics and health. It shows all breakers and "
        "changes nothing.",
    )
    web_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_hosts)] = Field(
        default=(),
        description="Names by which the page may be asked for, with commas between them, besides addresses, localhost "
        "and names of the cluster: that of an Ingress, for example.",
    )
    log_format: Literal["text", "json"] = Field(default="text", description="How log lines look: text or json.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The least important lines to write: DEBUG, INFO, WARNING or ERROR."
    )
    metrics_per_breaker: Boolean = Field(
        default=True,
        description="Whether each breaker has series of its own; those of all together remain.",
    )

    @property
    def keys(self) -> Keys:
        return Keys(self.key_prefix)

    @property
    def redis_address(self) -> str:
        """Where Redis is, for people: without user and password."""
        where = endpoint(self)
        if self.redis_sentinel:
            return f"{self.redis_sentinel_master} of the sentinels {', '.join(map(str, self.redis_sentinel))}"
        database = f"/{where.database}" if where.database else ""
        return f"{'rediss' if where.tls else 'redis'}://{where.address}{database}"

    @property
    def projection(self) -> Projection:
        """What the functions do about the shared names; what they leave is the operator's work."""
        return Projection.MESSAGES if self.redis_cluster or self.isolated_namespaces else Projection.SHARED

    @classmethod
    def load(cls, **given: Any) -> Self:
        """The environment's settings, with some given by name; raises SettingsError, a line for each wrong variable."""
        try:
            settings = cls(**given)
        except ValidationError as error:
            raise SettingsError("\n".join(_complaints(error))) from None
        if wrong := [*contradictions(settings), *_lease_contradictions(settings)]:
            raise SettingsError("\n".join(f"{variable_of(field)}: {text}" for field, text in wrong))
        return settings


def unknown_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """A sentence for each variable that begins with CB_ and that nothing reads."""
    known = sorted({variable_of(name) for name in Settings.model_fields} | KNOWN_ELSEWHERE)
    sentences = []
    for name in sorted(os.environ if environment is None else environment):
        if name.startswith(PREFIX) and name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.75)
            sentences.append(f"{name} is not a setting" + (f"; {near[0]} is" if near else ""))
    return sentences


def table() -> list[tuple[str, str, str]]:
    """(variable, default as it would be written, description) of every setting, in order."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.default
        if name.endswith("_ms"):
            text = format_duration(default)
        elif isinstance(default, SecretStr):
            text = default.get_secret_value()
        else:
            text = {None: "", (): "", True: "true", False: "false"}.get(default, default)
        rows.append((variable_of(name), str(text), field.description or ""))
    return rows


def _complaints(error: ValidationError) -> Iterable[str]:
    secret = {variable_of(name) for name, field in Settings.model_fields.items() if "Secret" in str(field.annotation)}
    for each in error.errors(include_url=False):
        place = str(each["loc"][0]) if each["loc"] else ""
        variable = place if place.startswith(PREFIX) else variable_of(place)
        found = "" if variable in secret else f" (it is {each['input']!r})"
        text = each["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        yield f"{variable}: {text}{found}"
