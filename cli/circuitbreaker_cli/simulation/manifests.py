"""A CircuitBreaker in a file, checked as the API server and the operator check it. Pure.

More strictly in one thing: a field that nobody knows is an error, as for `kubectl apply`, and not left out.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, get_args

import yaml
from pydantic import BaseModel

from circuitbreaker_cli.errors import CommandError, Exit
from circuitbreaker_cli.words import safe
from circuitbreaker_contract.policy import Policy
from circuitbreaker_operator.models import CircuitBreakerSpec, InvalidSpecError, parse_spec
from circuitbreaker_operator.plan import resolve
from circuitbreaker_operator.resource import API_VERSION, KIND
from circuitbreaker_operator.settings import Settings

_PROBLEMS: Final = re.compile(r"; (?=spec[.:])")  # between those that the model names in one line


@dataclass(frozen=True, slots=True)
class Manifest:
    """What it is called (safe to print, "" without a name), and the policy that it asks for."""

    name: str
    policy: Policy


class _Loader(yaml.SafeLoader):
    """A time stays the text that it is in JSON."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in each if tag != "tag:yaml.org,2002:timestamp"]
    for first, each in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_manifest(text: str, name: str, settings: Settings) -> Manifest:
    """The one CircuitBreaker of a YAML or JSON text, with the operator's defaults for what it leaves out.

    Raises CommandError, which names what is wrong and what would be right; `name` is that of the file.
    """
    body = _only_document(text, name)
    kind, version = body.get("kind"), body.get("apiVersion")
    if kind != KIND or version != API_VERSION:
        found = f"kind {_said(kind)}, apiVersion {_said(version)}"
        raise _wrong(name, f"holds {found}; it must be kind {KIND}, apiVersion {API_VERSION}")
    spec = body.get("spec") or {}
    if isinstance(spec, Mapping) and (unknown := list(_unknown(spec, CircuitBreakerSpec, "spec"))):
        raise _wrong(name, *unknown)
    try:
        policy = resolve(parse_spec(spec), settings)
    except InvalidSpecError as error:
        raise _wrong(name, *_PROBLEMS.split(str(error))) from None
    metadata = body.get("metadata")
    names = [metadata.get(each) for each in ("namespace", "name")] if isinstance(metadata, Mapping) else []
    return Manifest("/".join(safe(each, 253) for each in names if isinstance(each, str)), policy)


def _only_document(text: str, name: str) -> Mapping[str, Any]:
    try:
        documents = [each for each in yaml.load_all(text, _Loader) if each is not None]  # a SafeLoader
    except yaml.YAMLError as error:
        raise _wrong(name, f"is no YAML: {_place(error)}") from None
    except RecursionError:
        raise _wrong(name, "is nested too deep") from None
    except ValueError as error:  # a number or key that YAML allows and Python cannot make
        raise _wrong(name, f"is no YAML that can be read: {safe(error, 200)}") from None
    if len(documents) != 1:
        raise _wrong(name, f"holds {len(documents)} documents; it must be one {KIND}")
    if not isinstance(documents[0], Mapping):
        raise _wrong(name, f"holds no object; it must be one {KIND}")
    return documents[0]


def _place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    what = safe(getattr(error, "problem", None) or error, 200)
    return f"line {mark.line + 1}, column {mark.column + 1}: {what}" if mark is not None else what


def _unknown(part: Mapping[Any, Any], model: type[BaseModel], path: str) -> Iterator[str]:
    """A sentence for each field that the model does not have, in it and below."""
    fields = {each.alias or name: each for name, each in model.model_fields.items()}
    for name, value in part.items():
        if name not in fields:
            near = get_close_matches(str(name), fields, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"it has {', '.join(fields)}"
            yield f"{path}.{safe(name, 64)}: there is no such field; {remedy}"
            continue
        inner = next((each for each in get_args(fields[name].annotation) if _is_model(each)), None)
        if inner is not None and isinstance(value, Mapping):
            yield from _unknown(value, inner, f"{path}.{name}")


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _said(value: object) -> str:
    return safe(value, 64) if isinstance(value, str) and value else "missing"


def _wrong(name: str, *complaints: str) -> CommandError:
    return CommandError("\n".join((f"{name} cannot be read as a {KIND}", *complaints)), Exit.USAGE)
