"""Objects for programs: JSON, YAML, names. Pure.

Both forms escape whatever is not ASCII, so no text of others reaches a terminal as it is.
"""

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from circuitbreaker_cli.breakers.view import View
from circuitbreaker_operator.resource import GROUP, KIND


class Output(StrEnum):
    """`-o`, as kubectl has it."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class History(StrEnum):
    """`-o` of a table whose rows have no names."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


class Lines(StrEnum):
    """`-o` of what goes on: a line each, of words or of JSON."""

    TEXT = "text"
    JSON = "json"


class Form(StrEnum):
    """`-o` of what is not a table."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=True)


def as_yaml(value: Any) -> str:
    import yaml  # noqa: PLC0415 - for this form alone

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=False)).rstrip("\n")


def as_list(views: Sequence[View]) -> dict[str, Any]:
    """As `kubectl get` prints several."""
    return {"apiVersion": "v1", "kind": "List", "items": [dict(each.raw) for each in views]}


def as_name(view: View) -> str:
    return f"{KIND.lower()}.{GROUP}/{view.name}"
