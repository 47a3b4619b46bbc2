"""The API server for `doctor`: each question by itself, of which any may be refused."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from circuitbreaker_cli import terminal
from circuitbreaker_cli.breakers.view import instant, part
from circuitbreaker_cli.checks import installation
from circuitbreaker_cli.checks.findings import Answer
from circuitbreaker_cli.checks.installation import RIGHTS, SELECTOR, Clock, clock
from circuitbreaker_cli.errors import CommandError, KubectlError
from circuitbreaker_cli.remote.kubectl import Kubectl
from circuitbreaker_cli.words import safe

T = TypeVar("T")
Objects = Sequence[Mapping[str, Any]]
_SECONDS: Final = 15.0  # for each question; a doctor who never comes back helps nobody


def asked(ask: Callable[[], T]) -> Answer[T]:
    try:
        return Answer(ask())
    except CommandError as error:
        return Answer(why_not=" ".join(str(error).split("\n"))[:400])


def read(api: Kubectl, *arguments: str, stdin: str | None = None) -> Mapping[str, Any]:
    return next(iter(_objects(api, *arguments, stdin=stdin)), {})


def _objects(api: Kubectl, *arguments: str, stdin: str | None = None) -> list[Mapping[str, Any]]:
    """The JSON objects that kubectl prints one after the other."""
    rest = api.run(*arguments, stdin=stdin, seconds=_SECONDS).strip()
    found: list[Mapping[str, Any]] = []
    decoder = json.JSONDecoder()
    try:
        while rest:
            value, end = decoder.raw_decode(rest)
            found.append(value if isinstance(value, dict) else {})
            rest = rest[end:].lstrip()
    except (ValueError, RecursionError) as error:
        raise KubectlError(f"kubectl printed something that is no JSON: {safe(error)}") from error
    return found


def raw(api: Kubectl, path: str) -> Mapping[str, Any]:
    return read(api, "get", f"--raw={path}")


def whoami(api: Kubectl) -> tuple[Answer[Mapping[str, Any]], Answer[Clock]]:
    """Who the API server takes us for, and its time: a review of oneself is of that moment, and anybody may ask."""
    before_ms = terminal.now_ms()
    me = asked(lambda: read(api, "auth", "whoami", "--output=json"))
    after_ms = terminal.now_ms()
    told_ms = instant(part(me.value or {}, "metadata"), "creationTimestamp")
    if told_ms is None:
        return me, Answer(why_not=me.why_not or "it tells no time")
    return me, Answer(clock("the API server", told_ms=told_ms, before_ms=before_ms, after_ms=after_ms, step_ms=1_000))


def of_operator(api: Kubectl, kind: str, namespace: str) -> Answer[Objects]:
    """By their label, in all namespaces, or in the operator's own where that is all one may."""
    flags = ("get", kind, f"--selector={SELECTOR}", "--output=json")
    everywhere = asked(lambda: _items(read(replace(api, namespace=""), *flags, "--all-namespaces")))
    if everywhere.value is not None:
        return everywhere
    there = asked(lambda: _items(read(_in(api, namespace), *flags)))
    return there if there.value is not None else everywhere


def leases(api: Kubectl, namespaces: Sequence[str]) -> Objects:
    get = ("get", "leases.coordination.k8s.io", "--output=json")
    return [lease for namespace in namespaces for lease in _items(read(_in(api, namespace), *get))]


def places(deployments: Answer[Objects], namespace: str) -> list[str]:
    """Where operators are: where their Deployments are, else where they are by default."""
    found = {str(part(each, "metadata").get("namespace")) for each in deployments.value or ()}
    return sorted(found) or [namespace]


def rights(api: Kubectl, namespace: str) -> Objects:
    questions = "\n".join(json.dumps(installation.review(each, namespace)) for each in RIGHTS)
    return _objects(api, "create", "--validate=false", "--filename=-", "--output=json", stdin=questions)


def default_namespace(api: Kubectl) -> str:
    said = asked(lambda: api.run("config", "view", "--minify", "--output=jsonpath={..namespace}", seconds=_SECONDS))
    return (said.value or "").strip() or "default"


def _in(api: Kubectl, namespace: str) -> Kubectl:
    return replace(api, namespace=namespace, all_namespaces=False)


def _items(body: Mapping[str, Any]) -> Objects:
    return [each for each in body.get("items") or [] if isinstance(each, Mapping)]
