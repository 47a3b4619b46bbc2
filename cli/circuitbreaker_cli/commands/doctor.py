"""The command `doctor`: asks whatever can be asked with the rights there are, and shows what the checks make of it."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Annotated, Any, Final, TypeVar

import typer
from rich.text import Text

from circuitbreaker_cli import options, terminal
from circuitbreaker_cli.breakers.view import View, instant, part
from circuitbreaker_cli.checks import findings, installation, served, stuck
from circuitbreaker_cli.checks.findings import Answer, Finding, Verdict, not_checked
from circuitbreaker_cli.checks.installation import RIGHTS, SELECTOR, Clock, clock
from circuitbreaker_cli.errors import CommandError, Exit, KubectlError
from circuitbreaker_cli.formats import Form, as_json, as_yaml
from circuitbreaker_cli.remote.kubectl import Kubectl
from circuitbreaker_cli.remote.redis_url import NEEDED, is_given
from circuitbreaker_cli.remote.survey import Survey, survey
from circuitbreaker_cli.words import safe

T = TypeVar("T")
Objects = Sequence[Mapping[str, Any]]
_SECONDS: Final = 15.0  # for each question; a doctor who never comes back helps nobody
_AT_ONCE: Final = 4


def command(
    output: options.TextOutput = Form.TEXT,
    all_namespaces: options.AllNamespaces = False,
    namespace: options.Namespace = "",
    operator_namespace: Annotated[
        str, typer.Option("--operator-namespace", help="Where the operator is, for those who may not look everywhere.")
    ] = installation.NAMESPACE,
    context: options.Context = "",
    kubeconfig: options.Kubeconfig = "",
    redis_url: options.RedisUrl = "",
) -> None:
    api = options.kubectl(context, kubeconfig, namespace, all_namespaces=all_namespaces)
    found = examine(api, operator_namespace, redis_url)
    if output is Form.TEXT:
        terminal.show(findings.page(found))
    else:
        told = findings.told(found)
        terminal.show(Text(as_json(told) if output is Form.JSON else as_yaml(told)))
    if findings.counts(found)[Verdict.PROBLEM]:
        raise typer.Exit(Exit.FAILURE)


def examine(api: Kubectl, operator_namespace: str, redis_url: str) -> list[Finding]:
    """Every check, in the order in which one would look."""
    try:
        api.command()
    except CommandError as error:
        return [Finding("kubectl", Verdict.PROBLEM, str(error), "https://kubernetes.io/docs/tasks/tools/")]
    version = _asked(lambda: _object(api, "version", "--output=json"))
    if version.value is None:
        why = "the API server cannot be reached"
        return [
            installation.api_server(version, Answer()),
            *(
                not_checked(check, why)
                for check in (served.CHECK, "Deployment", "pods", "Lease", "rights", stuck.CHECK)
            ),
            *_of_redis(Answer(why_not=why), _surveyed(redis_url, (), "")),
        ]
    namespace = "" if api.all_namespaces else api.namespace or _default_namespace(api)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        whoami = pool.submit(_whoami, api)
        group = pool.submit(_asked, lambda: _raw(api, served.GROUP_PATH))
        document = pool.submit(_asked, lambda: _raw(api, served.SCHEMA_PATH))
        views = pool.submit(_asked, api.breakers)
        deployments = pool.submit(_of_operator, api, "deployments.apps", operator_namespace)
        pods = pool.submit(_of_operator, api, "pods", operator_namespace)
        rights = pool.submit(_asked, lambda: _rights(api, namespace))
        leases = pool.submit(_asked, lambda: _leases(api, _places(deployments.result(), operator_namespace)))
        known = [each.full_name for each in views.result().value or ()]
        redis = _surveyed(redis_url, known, namespace)
    me, server = whoami.result()
    now_ms = _now_ms(server, redis)
    return [
        installation.api_server(version, me),
        served.examined(group.result(), document.result()),
        installation.deployments(deployments.result()),
        *installation.pods(pods.result(), now_ms),
        *installation.leases(leases.result(), pods.result(), now_ms),
        installation.rights(rights.result(), namespace),
        *_of_redis(server, redis, listed=views.result().value is not None),
        *_of_breakers(views.result(), now_ms, redis),
    ]


def _of_redis(server: Answer[Clock], redis: Answer[Survey], *, listed: bool = False) -> list[Finding]:
    """Redis itself, the library in it, clocks, and breakers in it that nobody asked for."""
    given = {"the API server": server}
    if redis.value is None:
        named = not redis.why_not.startswith(NEEDED)
        verdict, remedy = Verdict.PROBLEM if named else Verdict.NOT_CHECKED, "is it the address as seen from here?"
        return [
            Finding("Redis", verdict, redis.why_not, remedy if named else ""),
            *(not_checked(check, "Redis was not asked") for check in installation.OF_REDIS),
            *installation.clocks(given),
        ]
    said = redis.value
    orphans = said.orphans if listed else Answer(why_not="the resources could not be listed")
    return [
        Finding("Redis", Verdict.OK, f"{safe(said.address)} answers"),
        installation.functions(said.version),
        installation.orphans(orphans),
        *installation.clocks(given | {"Redis": said.clock}),
    ]


def _of_breakers(views: Answer[list[View]], now_ms: int, redis: Answer[Survey]) -> list[Finding]:
    if views.value is None:
        return [not_checked(stuck.CHECK, views.why_not)]
    return stuck.examined(views.value, now_ms, redis.value.seen if redis.value else None)


def _now_ms(server: Answer[Clock], redis: Answer[Survey]) -> int:
    """Now, as those see it who write statuses and Leases: by Redis' clock, else the API server's."""
    told = [redis.value.clock if redis.value else None, server]
    return terminal.now_ms() + next((each.value.ahead_ms for each in told if each and each.value), 0)


# --- questions --------------------------------------------------------------------------------------------------------


def _asked(ask: Callable[[], T]) -> Answer[T]:
    try:
        return Answer(ask())
    except CommandError as error:
        return Answer(why_not=" ".join(str(error).split("\n"))[:400])


def _object(api: Kubectl, *arguments: str, stdin: str | None = None) -> Mapping[str, Any]:
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


def _raw(api: Kubectl, path: str) -> Mapping[str, Any]:
    return _object(api, "get", f"--raw={path}")


def _whoami(api: Kubectl) -> tuple[Answer[Mapping[str, Any]], Answer[Clock]]:
    """Who the API server takes us for, and its time: a review of oneself is of that moment, and anybody may ask."""
    before_ms = terminal.now_ms()
    me = _asked(lambda: _object(api, "auth", "whoami", "--output=json"))
    after_ms = terminal.now_ms()
    told_ms = instant(part(me.value or {}, "metadata"), "creationTimestamp")
    if told_ms is None:
        return me, Answer(why_not=me.why_not or "it tells no time")
    return me, Answer(clock("the API server", told_ms=told_ms, before_ms=before_ms, after_ms=after_ms, step_ms=1_000))


def _of_operator(api: Kubectl, kind: str, namespace: str) -> Answer[Objects]:
    """By their label, in all namespaces, or in the operator's own where that is all one may."""
    flags = ("get", kind, f"--selector={SELECTOR}", "--output=json")
    everywhere = _asked(lambda: _items(_object(replace(api, namespace=""), *flags, "--all-namespaces")))
    if everywhere.value is not None:
        return everywhere
    there = _asked(lambda: _items(_object(_in(api, namespace), *flags)))
    return there if there.value is not None else everywhere


def _leases(api: Kubectl, namespaces: Sequence[str]) -> Objects:
    get = ("get", "leases.coordination.k8s.io", "--output=json")
    return [lease for namespace in namespaces for lease in _items(_object(_in(api, namespace), *get))]


def _places(deployments: Answer[Objects], namespace: str) -> list[str]:
    """Where operators are: where their Deployments are, else where they are by default."""
    found = {str(part(each, "metadata").get("namespace")) for each in deployments.value or ()}
    return sorted(found) or [namespace]


def _rights(api: Kubectl, namespace: str) -> Objects:
    questions = "\n".join(json.dumps(installation.review(each, namespace)) for each in RIGHTS)
    return _objects(api, "create", "--validate=false", "--filename=-", "--output=json", stdin=questions)


def _default_namespace(api: Kubectl) -> str:
    said = _asked(lambda: api.run("config", "view", "--minify", "--output=jsonpath={..namespace}", seconds=_SECONDS))
    return (said.value or "").strip() or "default"


def _surveyed(redis_url: str, known: Sequence[str], namespace: str) -> Answer[Survey]:
    if not is_given(redis_url):
        return Answer(why_not=NEEDED)
    return _asked(lambda: survey(redis_url, known, namespace=namespace))


def _in(api: Kubectl, namespace: str) -> Kubectl:
    return replace(api, namespace=namespace, all_namespaces=False)


def _items(body: Mapping[str, Any]) -> Objects:
    return [each for each in body.get("items") or [] if isinstance(each, Mapping)]
