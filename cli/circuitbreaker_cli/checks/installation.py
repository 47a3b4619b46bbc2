"""The parts around breakers: the API server, the operator and its Lease, rights, Redis, clocks. Pure.

Each check looks at one answer and says by itself when there is none, so that a right that is missing hides one line and
no other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from circuitbreaker_cli.breakers.view import instant, part, whole
from circuitbreaker_cli.checks.findings import Answer, Finding, Verdict, not_checked
from circuitbreaker_cli.words import length, safe
from circuitbreaker_contract import library
from circuitbreaker_contract.protocol import Version
from circuitbreaker_operator.resource import GROUP, PLURAL

OPERATOR: Final = "circuitbreaker-operator"  # the name of Deployment and Lease, and the label, in manifests/base
SELECTOR: Final = f"app.kubernetes.io/name={OPERATOR}"
NAMESPACE: Final = "circuitbreaker-system"
_SKEW_MS: Final = 5_000  # clocks nearer to each other than this are one
_LEASE_GRACE_MS: Final = 30_000  # renewals are told by the holder's clock
_RESTARTED_MS: Final = 3_600_000
OF_CLUSTER: Final = ("Deployment", "pods", "Lease", "rights")  # the checks that need the API server
OF_REDIS: Final = ("functions", "orphans")  # and Redis
NO_LIBRARY: Final = "the function library is not in Redis"


@dataclass(frozen=True, slots=True)
class Right:
    """One question to the API server, and the commands that need it."""

    verb: str
    commands: str


RIGHTS: Final = (
    Right("list", "list, doctor"),
    Right("get", "describe, explain"),
    Right("watch", "watch"),
    Right("patch", "trip, hold-closed, release, reset"),
)


def api_server(version: Answer[Mapping[str, Any]], whoami: Answer[Mapping[str, Any]]) -> Finding:
    """Whether it answers, and as whom."""
    check = "API server"
    if version.value is None:
        return Finding(check, Verdict.PROBLEM, version.why_not, "kubectl cluster-info; is the context the right one?")
    server = safe(part(version.value, "serverVersion").get("gitVersion", "?"), 64)
    client = safe(part(version.value, "clientVersion").get("gitVersion", "?"), 64)
    user = part(part(whoami.value or {}, "status"), "userInfo").get("username")
    known = f"knows you as {safe(user, 253)}" if user else f"does not say who you are ({whoami.why_not})"
    return Finding(check, Verdict.OK, f"{server} {known}; kubectl {client}")


# --- the operator -----------------------------------------------------------------------------------------------------


def deployments(answer: Answer[Sequence[Mapping[str, Any]]]) -> Finding:
    check = "Deployment"
    if answer.value is None:
        return not_checked(check, answer.why_not)
    if not answer.value:
        text = f"none with the label {SELECTOR}; an operator elsewhere does not show here"
        return Finding(check, Verdict.WARNING, text, "docs/install.md says how to install it")
    names = [_name(each) for each in answer.value]
    if len(names) > 1:
        remedy = "leave one, or keep them apart: CB_NAMESPACES, and CB_KEY_PREFIX or a Redis for each"
        return Finding(check, Verdict.WARNING, f"{len(names)} installations of the operator", remedy, tuple(names))
    wanted = whole(part(answer.value[0], "spec"), "replicas")
    ready = whole(part(answer.value[0], "status"), "readyReplicas")
    if ready < wanted or not wanted:
        look = f"kubectl describe -n {names[0].replace('/', ' deployment/')}"
        return Finding(
            check, Verdict.WARNING if ready else Verdict.PROBLEM, f"{names[0]}: {ready} of {wanted} ready", look
        )
    return Finding(check, Verdict.OK, f"{names[0]}: {ready} of {wanted} ready")


def pods(answer: Answer[Sequence[Mapping[str, Any]]], now_ms: int) -> list[Finding]:
    """One finding for each pod that is not well, or one for all."""
    check = "pods"
    if answer.value is None:
        return [not_checked(check, answer.why_not)]
    if not answer.value:
        return [not_checked(check, f"there are none with the label {SELECTOR}")]
    there = [pod for pod in answer.value if not _is_over(pod)]
    if not there:
        return [not_checked(check, "all of them have ended or are ending")]
    found = [finding for pod in there for finding in _pod(check, pod, now_ms)]
    return found or [Finding(check, Verdict.OK, f"{len(there)} ready: {', '.join(map(_name, there))}")]


def _is_over(pod: Mapping[str, Any]) -> bool:
    """Evicted, or on its way out: another one has its place, and this one is only not cleared away yet."""
    ended = part(pod, "status").get("phase") in {"Failed", "Succeeded"}
    return ended or "deletionTimestamp" in part(pod, "metadata")


def _pod(check: str, pod: Mapping[str, Any], now_ms: int) -> Iterator[Finding]:
    status, name = part(pod, "status"), _name(pod)
    look = f"kubectl logs -n {name.replace('/', ' ')} --previous"
    conditions = {str(each.get("type")): each for each in status.get("conditions") or [] if isinstance(each, Mapping)}
    if part(conditions, "Ready").get("status") != "True":
        why = safe(_waiting(status) or part(conditions, "Ready").get("message") or status.get("phase") or "", 200)
        ask = f"kubectl describe pod -n {name.replace('/', ' ')}; its /readyz says what it lacks"
        yield Finding(check, Verdict.PROBLEM, f"{name} is not ready: {why}", ask)
    for each in _containers(status):
        ended = part(part(each, "lastState"), "terminated")
        ended_ms = instant(ended, "finishedAt")
        if whole(each, "restartCount") and ended_ms is not None and now_ms - ended_ms < _RESTARTED_MS:
            how = f"exit status {whole(ended, 'exitCode')}, {safe(ended.get('reason', ''), 64)}"
            last = length(max(0, now_ms - ended_ms))
            text = f"{name} has restarted {whole(each, 'restartCount')} times, last {last} ago"
            yield Finding(check, Verdict.WARNING, f"{text}: {how}", look)


def _containers(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [each for each in status.get("containerStatuses") or [] if isinstance(each, Mapping)]


def _waiting(status: Mapping[str, Any]) -> str:
    waiting = (part(part(each, "state"), "waiting") for each in _containers(status))
    return next((str(each.get("reason")) for each in waiting if each.get("reason")), "")


def leases(
    answer: Answer[Sequence[Mapping[str, Any]]], of_pods: Answer[Sequence[Mapping[str, Any]]], now_ms: int
) -> list[Finding]:
    """Whether somebody leads. Those of interest: the one of the manifests, and any that a pod of the operator holds."""
    check = "Lease"
    if answer.value is None:
        return [not_checked(check, answer.why_not)]
    known = {_name(each).rpartition("/")[2] for each in of_pods.value or ()}
    chosen = [each for each in answer.value if _name(each).rpartition("/")[2] == OPERATOR or _holder(each) in known]
    if chosen:
        return [_lease(check, each, known, now_ms) for each in chosen]
    if not known:
        return [not_checked(check, f"there is none named {OPERATOR}, and no pod of an operator")]
    text = f"there is none named {OPERATOR}, so several operators would not know of each other"
    return [
        Finding(check, Verdict.WARNING, text, "leave CB_LEADER_ELECTION out of the settings, unless there is one pod")
    ]


def _lease(check: str, lease: Mapping[str, Any], known: set[str], now_ms: int) -> Finding:
    spec, name, holder = part(lease, "spec"), _name(lease), _holder(lease)
    renewed_ms = instant(spec, "renewTime")
    if not holder or renewed_ms is None:
        return Finding(check, Verdict.PROBLEM, f"{name}: nobody leads", "kubectl logs of the operator's pods says why")
    age_ms, lasts_ms = now_ms - renewed_ms, whole(spec, "leaseDurationSeconds") * 1_000
    if age_ms > lasts_ms + _LEASE_GRACE_MS:
        text = f"{name}: {holder} renewed it {length(age_ms)} ago and no more, and nobody took over"
        return Finding(check, Verdict.PROBLEM, text, "is a pod of the operator running, and may it update the Lease?")
    text = f"{name}: {holder} leads, renewed {length(max(0, age_ms))} ago"
    if known and holder not in known:
        return Finding(
            check, Verdict.WARNING, text, "that is none of the pods here; does an operator run elsewhere too?"
        )
    return Finding(check, Verdict.OK, text)


def _holder(lease: Mapping[str, Any]) -> str:
    return safe(str(part(lease, "spec").get("holderIdentity") or "").partition("_")[0], 253)


def _name(body: Mapping[str, Any]) -> str:
    metadata = part(body, "metadata")
    return f"{safe(metadata.get('namespace', ''), 63)}/{safe(metadata.get('name', ''), 253)}"


# --- rights -----------------------------------------------------------------------------------------------------------


def review(right: Right, namespace: str) -> dict[str, Any]:
    """The question, as an object to create; namespace "" asks of all."""
    attributes = {"group": GROUP, "resource": PLURAL, "verb": right.verb, "namespace": namespace}
    kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    return {**kind, "spec": {"resourceAttributes": attributes}}


def rights(answer: Answer[Sequence[Mapping[str, Any]]], namespace: str) -> Finding:
    """What the plugin's commands may do, from the answers to all of RIGHTS in their order."""
    check, where = "rights", f"in {safe(namespace, 63)}" if namespace else "in all namespaces"
    if answer.value is None:
        return not_checked(check, answer.why_not)
    if len(answer.value) != len(RIGHTS):
        return not_checked(check, "the API server did not answer every question")
    denied = [
        right
        for right, each in zip(RIGHTS, answer.value, strict=True)
        if part(each, "status").get("allowed") is not True
    ]
    if not denied:
        return Finding(check, Verdict.OK, f"you may {', '.join(each.verb for each in RIGHTS)} {PLURAL} {where}")
    text = f"you may not {', '.join(each.verb for each in denied)} {PLURAL} {where}"
    lost = ", ".join(each.commands for each in denied)
    return Finding(
        check, Verdict.WARNING, f"{text}: {lost} will be refused", "view there is enough to look, edit to act"
    )


# --- Redis and clocks -------------------------------------------------------------------------------------------------


def functions(version: Answer[Version]) -> Finding:
    """The library in Redis beside the one of this program."""
    check, found = "functions", version.value
    mine = f"{library.VERSION}, {library.digest()}"
    if found is None:
        if version.why_not == NO_LIBRARY:
            return Finding(check, Verdict.PROBLEM, NO_LIBRARY, "an operator loads it at its start")
        return not_checked(check, version.why_not)
    theirs = f"edition {found.library}, {safe(found.digest, 32)}"
    if found.contract != library.CONTRACT_VERSION:
        text = f"Redis speaks contract version {found.contract} and this program {library.CONTRACT_VERSION}"
        return Finding(check, Verdict.PROBLEM, text, "use a program of that version, or another Redis")
    if found.library != library.VERSION:
        older, newer = ("Redis", "this program") if found.library < library.VERSION else ("this program", "Redis")
        text = f"{theirs} in Redis, and this program knows {mine}"
        return Finding(
            check, Verdict.WARNING, text, f"{older} is older than {newer}: bring the operator and this to one version"
        )
    if found.digest != library.digest():
        text = f"{theirs} in Redis, and this program has another text of that edition: {library.digest()}"
        return Finding(check, Verdict.WARNING, text, "one of them is a build under development")
    return Finding(check, Verdict.OK, f"contract {found.contract}, {theirs}, as this program knows it")


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock of another machine beside that of this one: `ahead_ms` of it, known to within `within_ms`."""

    name: str
    ahead_ms: int
    within_ms: int


def clock(name: str, *, told_ms: int, before_ms: int, after_ms: int, step_ms: int) -> Clock:
    """From what it told, between two looks at this machine's; `step_ms`: how coarse it tells."""
    return Clock(name, told_ms + step_ms // 2 - (before_ms + after_ms) // 2, (after_ms - before_ms + step_ms) // 2)


def clocks(answers: Mapping[str, Answer[Clock]]) -> list[Finding]:
    """This machine's, and each other's beside it."""
    check, found = "clocks", []
    known = [each.value for each in answers.values() if each.value is not None]
    found = [not_checked(check, f"{name}: {each.why_not}") for name, each in answers.items() if each.value is None]
    every = [Clock("this machine", 0, 0), *known]
    first, last = min(every, key=lambda each: each.ahead_ms), max(every, key=lambda each: each.ahead_ms)
    apart_ms = last.ahead_ms - first.ahead_ms
    if known and apart_ms > _SKEW_MS + first.within_ms + last.within_ms:
        text = f"the clock of {last.name} is {length(apart_ms)} ahead of that of {first.name}"
        remedy = "set both by NTP; breakers go by Redis' clock, and an override's end is told by the API server's"
        return [Finding(check, Verdict.WARNING, text, remedy), *found]
    if known:
        within_ms = max(abs(each.ahead_ms) + each.within_ms for each in known)
        names = ", ".join(each.name for each in every)
        return [Finding(check, Verdict.OK, f"{names} agree within {length(max(1, within_ms))}"), *found]
    return found


# --- what Redis has and nobody asked for ------------------------------------------------------------------------------

ENVIRONMENT: Final = "env"  # the owner of what a client defined by itself


def orphans(answer: Answer[Mapping[str, str]]) -> Finding:
    """Breakers in Redis without a resource, each with its owner; "" where only the shared hash still names it."""
    check = "orphans"
    if answer.value is None:
        return not_checked(check, answer.why_not)
    defined = sum(owner == ENVIRONMENT for owner in answer.value.values())
    left = {name: owner for name, owner in answer.value.items() if owner != ENVIRONMENT}
    if left:
        named = tuple(
            f"{name} (owner {safe(owner, 64)})" if owner else f"{name} (its name only)" for name, owner in left.items()
        )
        remedy = "their owner's operator removes them with its sweep; where that is gone: circuitbreaker-operator purge"
        return Finding(check, Verdict.WARNING, "breakers in Redis that have no resource", remedy, named)
    beside = f"; {defined} of clients' own have none and need none" if defined else ""
    return Finding(check, Verdict.OK, f"every breaker in Redis has its resource{beside}")
