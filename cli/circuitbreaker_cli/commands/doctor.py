"""The command `doctor`: asks whatever can be asked with the rights there are, and shows what the checks make of it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Final

import typer
from rich.text import Text

from circuitbreaker_cli import options, terminal
from circuitbreaker_cli.breakers.view import View
from circuitbreaker_cli.checks import findings, installation, served, stuck
from circuitbreaker_cli.checks.findings import Answer, Finding, Verdict, not_checked
from circuitbreaker_cli.checks.installation import Clock
from circuitbreaker_cli.errors import CommandError, Exit
from circuitbreaker_cli.formats import Form, as_json, as_yaml
from circuitbreaker_cli.remote import inquiry
from circuitbreaker_cli.remote.kubectl import Kubectl
from circuitbreaker_cli.remote.redis_url import NEEDED, is_given
from circuitbreaker_cli.remote.survey import Survey, survey
from circuitbreaker_cli.words import safe

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
    version = inquiry.asked(lambda: inquiry.read(api, "version", "--output=json"))
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
    namespace = "" if api.all_namespaces else api.namespace or inquiry.default_namespace(api)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        whoami = pool.submit(inquiry.whoami, api)
        group = pool.submit(inquiry.asked, lambda: inquiry.raw(api, served.GROUP_PATH))
        document = pool.submit(inquiry.asked, lambda: inquiry.raw(api, served.SCHEMA_PATH))
        views = pool.submit(inquiry.asked, api.breakers)
        deployments = pool.submit(inquiry.of_operator, api, "deployments.apps", operator_namespace)
        pods = pool.submit(inquiry.of_operator, api, "pods", operator_namespace)
        rights = pool.submit(inquiry.asked, lambda: inquiry.rights(api, namespace))
        leases = pool.submit(
            inquiry.asked, lambda: inquiry.leases(api, inquiry.places(deployments.result(), operator_namespace))
        )
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


def _surveyed(redis_url: str, known: Sequence[str], namespace: str) -> Answer[Survey]:
    if not is_given(redis_url):
        return Answer(why_not=NEEDED)
    return inquiry.asked(lambda: survey(redis_url, known, namespace=namespace))
