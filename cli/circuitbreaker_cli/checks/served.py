"""Whether the resource that the API server serves is the one that this program knows. Pure.

The program knows `spec` as the operator's model, which a test holds to crds/circuitbreakers.yaml. What is served is
read from the API server's OpenAPI document, which every user may read; the CustomResourceDefinition itself only few.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from circuitbreaker_cli.checks.findings import Answer, Finding, Verdict, not_checked
from circuitbreaker_cli.words import safe
from circuitbreaker_operator.models import CircuitBreakerSpec
from circuitbreaker_operator.resource import GROUP, KIND, VERSION

CHECK: Final = "resource"
GROUP_PATH: Final = f"/apis/{GROUP}"
SCHEMA_PATH: Final = f"/openapi/v3{GROUP_PATH}/{VERSION}"
_COMPARED: Final = ("type", "minimum", "maximum", "maxLength", "enum", "required")
_SHOWN: Final = 3
_APPLY: Final = "kubectl apply --server-side -f crds/circuitbreakers.yaml, of this version of the project"


def examined(group: Answer[Mapping[str, Any]], document: Answer[Mapping[str, Any]]) -> Finding:
    """What is served, from the answers at GROUP_PATH and SCHEMA_PATH."""
    if group.value is None:
        if "NotFound" in group.why_not or "could not find" in group.why_not:
            return Finding(CHECK, Verdict.PROBLEM, f"there is no CustomResourceDefinition of {GROUP}", _APPLY)
        return not_checked(CHECK, group.why_not)
    versions = [
        safe(each.get("version"), 64) for each in group.value.get("versions") or [] if isinstance(each, Mapping)
    ]
    if VERSION not in versions:
        text = f"{', '.join(versions) or 'nothing'} of {GROUP} is served, and this program knows {VERSION}"
        return Finding(CHECK, Verdict.PROBLEM, text, _APPLY)
    schema = None if document.value is None else _spec(document.value)
    if schema is None:
        return not_checked(
            CHECK, f"{VERSION} is served; its schema cannot be read: {document.why_not or 'not there yet'}"
        )
    missing, others = _differences(schema)
    if missing:
        text = f"the schema served is not that of this program: {_some(missing)}"
        return Finding(CHECK, Verdict.PROBLEM, text, f"{_APPLY}; the API server drops or refuses what it does not know")
    if others:
        text = f"the schema served knows more than this program: {_some(others)}"
        return Finding(CHECK, Verdict.WARNING, text, "take the version of this program that the operator has")
    return Finding(CHECK, Verdict.OK, f"{VERSION} is served, with the schema that this program knows")


def _spec(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of `spec` in an OpenAPI document."""
    components = document.get("components")
    schemas = components.get("schemas") if isinstance(components, Mapping) else None
    for name, each in schemas.items() if isinstance(schemas, Mapping) else ():
        if str(name).endswith(f".{VERSION}.{KIND}") and isinstance(each, Mapping):
            spec = (each.get("properties") or {}).get("spec")
            return spec if isinstance(spec, Mapping) else None
    return None


def _differences(served: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What this program knows and the API server has otherwise, and what only the API server has."""
    known, there = dict(_walk(_known())), dict(_walk(served))
    wrong = [f"no {path}" for path in known if path not in there]
    wrong += [
        f"{word} of {path} is {safe(there[path].get(word), 64)} and not {known[path].get(word)}"
        for path in known
        if path in there
        for word in _COMPARED
        if there[path].get(word) != known[path].get(word)
    ]
    return wrong, [safe(path) for path in there if path not in known]


@cache
def _known() -> Mapping[str, Any]:
    schema = CircuitBreakerSpec.model_json_schema()
    known: Mapping[str, Any] = _resolved(schema, schema.get("$defs", {}))
    return known


def _resolved(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema of pydantic in the form of the API server's: references resolved, `null` left out."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        (schema,) = (choice for choice in schema["anyOf"] if choice != {"type": "null"})
        return _resolved(schema, definitions)
    if "properties" not in schema:
        return schema
    properties = {name: _resolved(child, definitions) for name, child in schema["properties"].items()}
    return {**schema, "properties": properties}


def _walk(schema: Mapping[str, Any], path: str = "spec") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every schema in it with its path."""
    yield path, schema
    for name, child in (schema.get("properties") or {}).items():
        if isinstance(child, Mapping):
            yield from _walk(child, f"{path}.{name}")


def _some(texts: list[str]) -> str:
    more = len(texts) - _SHOWN
    return "; ".join(texts[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
