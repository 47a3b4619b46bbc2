"""Writes docs/reference/ from what it describes: `make reference`.

The resource's page is made from crds/, the settings' from the operator's model, the metrics' from the code that shows
them. Change those; a test fails while a page is another one than this makes.
"""

import re
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin

import yaml
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from pydantic.fields import FieldInfo
from scripts.writing import write

from circuitbreaker_client import CircuitBreakers
from circuitbreaker_client.opentelemetry import OpenTelemetryEvents
from circuitbreaker_client.prometheus import CircuitBreakerCollector
from circuitbreaker_operator.exposition import FAMILIES
from circuitbreaker_operator.metrics import Book, FleetCollector, Metrics
from circuitbreaker_operator.settings import FromTo, Settings, table

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "docs" / "reference"
NOTE: Final = "<!-- written by `make reference` from {source}: change that, not this -->"
Json = Mapping[str, Any]

RESOURCE: Final = """\
A duration is written as in the Gateway API: `30s`, `1m30s`, `500ms`. A time is one of RFC 3339. What an edit of a field
keeps: [operator.md](../operator.md#what-an-edit-keeps)."""
SETTINGS: Final = """\
The operator reads these variables of its environment, once; `circuitbreaker-operator --help` prints them. A duration is
like `500ms`, `30s` or `1m30s`, and a bare whole number is seconds. A boolean is `true`, `1`, `yes`, `on`, `false`, `0`,
`no` or `off`. An empty variable is one that is not set. A value that cannot be read, or that contradicts another, stops
the start with a line that names the variable; a variable that begins with `CB_` and that nobody knows is said once in
the log.

The Python client has settings of its own: [client.md](../client.md#options)."""
METRICS: Final = """\
The operator serves the first three groups on `/metrics`, in the format of Prometheus or of OpenMetrics, as it is asked.
How to scrape them, dashboards and alerts: [monitoring.md](../monitoring.md)."""
OF_EACH: Final = """\
Counted in Redis, over all processes: a restart of the operator loses nothing. Only the leader shows them, and
`CB_METRICS_PER_BREAKER=false` leaves them out. With them, 10,000 breakers are 250,000 lines."""
OF_ALL: Final = """\
On the leader only, also with `CB_METRICS_PER_BREAKER=false`. A counter begins with what Redis has counted of each
breaker when this process first reads it, so after a takeover it rises from 0 to that at once; what is deleted stays
counted."""
OF_THE_OPERATOR: Final = """\
`circuitbreaker_operator_redis_...` and `circuitbreaker_operator_resources` are there on the leader only, too. Beside
these it shows what the Prometheus client for Python shows of any process: `process_...`, `python_...`."""


def rows(head: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    """A table of Markdown."""
    lines = [list(head), *map(list, body)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def code(text: str) -> str:
    return f"`{text}`" if text else ""


_NAMES = re.compile(
    r"\bCB_[A-Z_]*[A-Z]"  # a variable
    r"|rediss?://(?:[\w:@/]*\w)?"
    r"|circuitbreaker\.dev/\w+|circuit_breaker_\w+(?::<\w+>)?"
    r"|\b(?:spec|status|metadata|window|backoff)\.\w+"
    r"|\b[a-z]+[A-Z]\w*"  # a field
)


def marked(text: str) -> str:
    """What a description says, with names as code. Descriptions are plain text: `kubectl explain` shows them too."""
    return _NAMES.sub(lambda found: code(found[0]), text)


# -- the resource

_LENGTH = re.compile(r"must be a (duration from \w+ to \w+)")
_DEFAULT = re.compile(r"^(?P<text>.*?)\s?(?:Default:? (?P<default>.*)|(?P<other>No default|Required.*))\.$", re.DOTALL)


def kind(schema: Json) -> str:
    """The type with its bounds, in words."""
    messages = [rule["message"] for rule in schema.get("x-kubernetes-validations", ())]
    if found := next(filter(None, map(_LENGTH.match, messages)), None):
        return found[1]
    if "enum" in schema:
        return "one of " + ", ".join(code(each) if each else "empty" for each in schema["enum"])
    if schema["type"] in {"integer", "number"}:
        low, high = schema.get("minimum"), schema.get("maximum")
        if high is not None:
            return f"{schema['type']} from {low} to {high}"
        return schema["type"] if low is None else f"{schema['type']}, at least {low}"
    if schema.get("format") == "date-time" or any("RFC 3339" in each for each in messages):
        return "time"
    if schema["type"] == "array":
        return f"list, at most {schema['maxItems']}" if "maxItems" in schema else "list"
    return f"{schema['type']}, at most {schema['maxLength']} characters" if "maxLength" in schema else schema["type"]


def flat(schema: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """(path, schema) of every field below, in order."""
    for name, field in (schema.get("properties") or schema.get("items", {}).get("properties") or {}).items():
        place = f"{path}.{name}" if path else name
        yield place, field
        yield from flat(field, f"{place}[]" if field["type"] == "array" else place)


def spec_table(spec: Json) -> str:
    """Every field of `spec`; what its description says of its default has a column of its own."""
    body = []
    for path, field in flat(spec):
        found = _DEFAULT.match(field["description"])
        if found is None:
            raise ValueError(f"spec.{path}: the description does not end with its default, or with Required")
        body.append(
            (code(path), kind(field), marked(found["default"] or found["other"].lower()), marked(found["text"]))
        )
    return rows(("field", "type", "default", "meaning"), body)


def rules(spec: Json) -> Iterator[tuple[str, str]]:
    """(field, message) of every rule over the spec; those of one length are told by its type."""
    for path, field in (("", spec), *flat(spec)):
        for rule in field.get("x-kubernetes-validations", ()):
            if not _LENGTH.match(rule["message"]):
                place = f"{path}{rule.get('fieldPath', '')}".removeprefix(".")
                yield code(f"spec.{place}"), marked(rule["message"])


def crd() -> str:
    """The page of the resource."""
    definition = yaml.safe_load((ROOT / "crds" / "circuitbreakers.yaml").read_text(encoding="utf-8"))["spec"]
    (version,) = definition["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    spec, status = schema["properties"]["spec"], schema["properties"]["status"]
    names = definition["names"]
    columns = [
        (
            each["name"].upper(),
            code(each["jsonPath"]),
            "with `-o wide`" if each.get("priority") else "always",
            marked(each["description"]),
        )
        for each in version["additionalPrinterColumns"]
    ]
    general = (
        ("group and version", code(f"{definition['group']}/{version['name']}")),
        ("kind", code(names["kind"])),
        ("names for kubectl", ", ".join(map(code, (names["plural"], names["singular"], *names["shortNames"])))),
        ("categories", ", ".join(map(code, names["categories"]))),
        ("scope", definition["scope"]),
        ("field selectors", ", ".join(code(each["jsonPath"]) for each in version["selectableFields"])),
        ("name", f"at most {schema['properties']['metadata']['properties']['name']['maxLength']} characters"),
    )
    return "\n\n".join(
        (
            "# The resource",
            NOTE.format(source="crds/circuitbreakers.yaml"),
            marked(schema["description"]),
            rows(("", ""), general),
            RESOURCE,
            "## spec",
            marked(spec["description"]),
            spec_table(spec),
            "## Rules over spec",
            "The API server refuses what breaks one of these, with its message, before anything is stored.",
            rows(("field", "message"), rules(spec)),
            "## status",
            marked(status["description"]),
            rows(
                ("field", "type", "meaning"),
                ((code(path), kind(each), marked(each["description"])) for path, each in flat(status)),
            ),
            "What reasons and conditions mean: [operator.md](../operator.md#what-a-status-says).",
            "## Columns of kubectl get",
            rows(("column", "from", "shown", "meaning"), columns),
        )
    )


# -- the settings

_SECTIONS: Final = {
    "Redis": ("redis_", "key_prefix", "isolated_"),
    "What is served": ("owner", "namespaces"),
    "Defaults of policies": ("failure_", "recovery_", "half_open_", "success_", "probe_"),
    "Statuses and comparison": ("status_", "sweep_"),
    "Several replicas": ("leader_", "lease_"),
    "HTTP": ("http_", "web"),
    "Logs and metrics": ("log_", "metrics_"),
}
_KINDS: Final[Mapping[Any, str]] = {
    bool: "boolean",
    int: "whole number",
    float: "number",
    Path: "file",
    tuple: "list, with commas",
}


def section_of(field: str) -> str:
    """Raises StopIteration for a field that belongs to none: it has to be put somewhere."""
    return next(title for title, starts in _SECTIONS.items() if field.startswith(starts))


def bounds(field: FieldInfo) -> str:
    """The kind of a setting with its bounds, in words."""
    annotation, metadata = field.annotation, list(field.metadata)
    if get_origin(annotation) in {Union, types.UnionType}:
        annotation = next(each for each in get_args(annotation) if each is not type(None))
        for inner in get_args(annotation)[1:]:  # what Annotated says stays inside of a union
            metadata += getattr(inner, "metadata", [inner])
        annotation = get_args(annotation)[0] if get_args(annotation) else annotation
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(code, get_args(annotation)))
    length = next((each.func for each in metadata if isinstance(getattr(each, "func", None), FromTo)), None)
    if length is not None:
        return f"duration {length}"
    word = _KINDS.get(get_origin(annotation) or annotation, "text")
    low, high = (next((getattr(each, at) for each in metadata if hasattr(each, at)), None) for at in ("ge", "le"))
    return word if low is None else f"{word} from {low} to {high}"


def settings() -> str:
    """The page of the operator's settings."""
    fields = Settings.model_fields
    told: dict[str, list[tuple[str, ...]]] = {title: [] for title in _SECTIONS}
    for (variable, default, text), (name, field) in zip(table(), fields.items(), strict=True):
        told[section_of(name)].append((code(variable), bounds(field), code(default), marked(text)))
    parts = [
        "# Settings",
        NOTE.format(source="operator/circuitbreaker_operator/settings.py"),
        SETTINGS,
    ]
    for title, body in told.items():
        parts += [f"## {title}", rows(("variable", "value", "default", "meaning"), body)]
    return "\n\n".join(parts)


# -- the metrics


def series(name: str, type_: str) -> str:
    """As Prometheus shows it."""
    return f"{name}_total" if type_ == "counter" else name


def shown(families: Iterable[Metric], always: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """A row for each; labels are those of its first sample, after those that all have."""
    for family in families:
        labels = dict.fromkeys((*always, *(family.samples[0].labels if family.samples else ())))
        yield row(family.name, family.type, labels, family.documentation)


def row(name: str, type_: str, labels: Iterable[str], text: str) -> tuple[str, ...]:
    return code(series(name, type_)), type_, ", ".join(map(code, labels)), marked(text)


def instruments() -> Iterator[tuple[str, ...]]:
    """Those of the operator itself, a leader's too."""
    metrics = Metrics()
    metrics.lead()
    # The library tells the names of labels only with a sample, and most have none before there is work.
    for each in metrics.registry._collector_to_names:  # noqa: SLF001
        if isinstance(each, MetricWrapperBase):
            yield row(each._name, str(each._type), each._labelnames, each._documentation)  # noqa: SLF001


class Recorder:
    """A provider of meters that notes which instruments are made."""

    def __init__(self) -> None:
        self.made: list[tuple[str, ...]] = []

    def get_meter(self, *_: object, **__: object) -> "Recorder":
        return self

    def create_counter(self, name: str, *, unit: str, description: str) -> None:
        self.made.append((code(name), "counter", code(unit), description))

    def create_histogram(self, name: str, *, unit: str, description: str) -> None:
        self.made.append((code(name), "histogram", code(unit), description))


def metrics() -> str:
    """The page of what can be scraped."""
    head = ("series", "type", "labels", "meaning")
    own = ("namespace", "name")
    recorder: Any = Recorder()
    OpenTelemetryEvents(recorder)
    with CircuitBreakers(state_sync=False) as breakers:
        breakers["payments"].call(str)
        client = list(shown(CircuitBreakerCollector(breakers).collect(), own))
    return "\n\n".join(
        (
            "# Metrics",
            NOTE.format(source="the code that shows them"),
            METRICS,
            "## Of each breaker",
            OF_EACH,
            rows(head, (row(each.name, each.kind, (*own, *each.labels), each.text) for each in FAMILIES)),
            "## Of all breakers together",
            OF_ALL,
            rows(head, shown(FleetCollector(Book()).collect())),
            "## Of the operator",
            OF_THE_OPERATOR,
            rows(head, instruments()),
            "## Of the Python client, in Prometheus",
            "Of one process, with the extra `prometheus`: [client.md](../client.md#metrics).",
            rows(head, client),
            "## Of the Python client, in OpenTelemetry",
            "Of one process, with the extra `opentelemetry`.",
            rows(("instrument", "type", "unit", "meaning"), recorder.made),
        )
    )


def texts() -> dict[str, str]:
    """File name -> what it holds."""
    return {"crd.md": crd() + "\n", "settings.md": settings() + "\n", "metrics.md": metrics() + "\n"}


if __name__ == "__main__":
    write(FOLDER, texts())
