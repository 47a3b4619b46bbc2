"""What each kind of user needs to be allowed in Redis: ACL rules, derived from the text of the library.

Inside a function Redis checks every command against the caller's rules, so a user needs the functions it calls by name
and the commands that these run. Those are read off the Lua here; a rule written by hand would be wrong after the next
edition. A test holds `contract/acl/users.acl` to what `template` gives.

`python -m circuitbreaker_contract.access --user app --namespace shop` prints one line, without arguments the template.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cache

from circuitbreaker_contract import library
from circuitbreaker_contract.keys import DEFAULT_PREFIX, NAME_FORM, Keys

NAMESPACE_PLACEHOLDER = "NAMESPACE"  # in upper case, so that it can be no namespace

_TOKENS = re.compile(r"--[^\n]*|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[^-'\"]+|-")
_DEFINITION = re.compile(r"local (?:function )?(\w+)")
_REGISTRATION = re.compile(r"redis\.register_function\{\s*function_name = '(\w+)'")
_COMMAND = re.compile(r"\b(?:(?:redis\.p?)?call\(\s*|op\(\s*\w+,\s*)'(\w+)'")
_CALL = re.compile(r"\b(?:redis\.p?)?call\(\s*(?:'|(unpack\(command\)\)))?")  # save() runs what `op` was given
_STRING = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")
_NAME = re.compile(r"(?<![.:\w])[A-Za-z_]\w*")


class User(StrEnum):
    """Who connects. `app` is a service of one namespace, `viewer` sees everything and changes nothing."""

    OPERATOR = "operator"
    APP = "app"
    VIEWER = "viewer"


_NAMES = {User.OPERATOR: "circuitbreaker-operator", User.APP: "app-{namespace}", User.VIEWER: "circuitbreaker-viewer"}
_FUNCTIONS = {
    User.OPERATOR: ("cb_version", "cb_observe", "cb_configure", "cb_tick", "cb_reset", "cb_delete"),
    User.APP: ("cb_version", "cb_observe", "cb_acquire", "cb_report", "cb_settle"),
    User.VIEWER: ("cb_version", "cb_observe"),
}
_READING = frozenset({"cb_version", "cb_observe"})  # called with FCALL_RO
# What they send besides functions: a connection's own, the channel, and what the operator keeps and compares.
_CONNECTION = ("ping", "client|setname", "subscribe", "unsubscribe")
_SENT = {
    User.OPERATOR: (
        *_CONNECTION, "cluster|shards", "asking", "publish", "info", "function|load", "function|list", "scan", "exists",
        "hscan", "hset", "hdel", "pubsub|numsub",
    ),
    User.APP: (*_CONNECTION, "asking"),
    User.VIEWER: (*_CONNECTION, "cluster|shards", "asking", "hget", "hmget", "hgetall", "hscan"),
}  # fmt: skip


def commands(text: str) -> Mapping[str, frozenset[str]]:
    """Function -> the Redis commands that it can run, for the joined text of a library.

    Follows the names of top-level functions, so it errs towards too many. Raises ValueError for a command that is not
    written out where it is called: it could not be seen.
    """
    bodies: dict[str, str] = {}
    registered: dict[str, str] = {}
    for statement in _statements(_without_comments(text)):
        for call in _CALL.finditer(statement):
            if not call[0].endswith("'") and not call[1]:
                raise ValueError(f"the command is not written out: {statement[call.start() : call.start() + 60]!r}")
        if registration := _REGISTRATION.match(statement):
            registered[registration[1]] = statement
        elif definition := _DEFINITION.match(statement):
            bodies[definition[1]] = bodies.get(definition[1], "") + statement
    return {name: _reachable(statement, bodies) for name, statement in registered.items()}


def rule(
    user: User,
    *,
    namespace: str = NAMESPACE_PLACEHOLDER,
    prefix: str = DEFAULT_PREFIX,
    name: str = "",
    secret: str = "",
    shared: bool = False,
) -> str:
    """The line of an ACL file; without its first word, what ACL SETUSER takes.

    `secret` is `>password` or `#sha256`, by default a placeholder. `shared` lets an app use the two shared names
    itself, for an installation whose namespaces trust each other. Raises ValueError for a namespace that cannot be one.
    """
    if namespace != NAMESPACE_PLACEHOLDER and not NAME_FORM.fullmatch(namespace):
        raise ValueError(f"namespace {namespace!r}: must be a name as Kubernetes has them, at most 63 characters")
    keys = Keys(prefix)
    states, updates, own = keys.states, keys.updates, keys.updates_of(namespace)
    inner = {command for function in _FUNCTIONS[user] for command in _commands_of_ours()[function]}
    if user is User.APP and not shared:
        inner -= {"publish"}  # only in the selector, for these channels
    allowed = [f"fcall{'_ro' if each in _READING else ''}|{each}" for each in _FUNCTIONS[user]]
    allowed += sorted(inner.union(_SENT[user]))
    words = ["user", name or _NAMES[user].format(namespace=namespace), "reset", "on"]
    words.append(secret or f">{user.value.upper()}_PASSWORD")
    match user:
        case User.OPERATOR:
            words += [f"~{prefix}{{*", f"~{states}", f"&{updates}", f"&{updates}:*"]
        case User.APP if shared:
            words += [f"~{prefix}{{{namespace}/*", f"~{states}", f"&{updates}", f"&{own}"]
        case User.APP:
            words += [f"~{prefix}{{{namespace}/*", f"&{own}"]
        case User.VIEWER:
            words += [f"%R~{prefix}{{*", f"%R~{states}", f"&{updates}", f"&{updates}:*"]
    words += [f"+{each}" for each in allowed]
    if user is User.APP and not shared:
        words.append(f"(+publish &{updates} &{own})")  # may say that something changed, may not hear what others say
    return " ".join(words)


# Off, so nobody can be it; with its rights, since Redis reads its append-only file as this user, and leaves out every
# transaction that it has no right to.
NOBODY = "user default off ~* &* +@all"


def template() -> str:
    """`contract/acl/users.acl`: the three kinds of user, with placeholders, and nobody else."""
    return "".join(f"{line}\n" for line in (NOBODY, *(rule(user) for user in User)))


@cache
def _commands_of_ours() -> Mapping[str, frozenset[str]]:
    return commands(library.source())


def _without_comments(text: str) -> str:
    return "".join(token for token in _TOKENS.findall(text) if not token.startswith("--"))


def _statements(text: str) -> list[str]:
    """The statements of the file's outermost level: each begins in the first column."""
    found: list[str] = []
    for line in text.splitlines(keepends=True):
        if line[:1].isalpha() and not re.match(r"end\b", line):
            found.append(line)
        elif found:
            found[-1] += line
    return found


def _reachable(statement: str, bodies: Mapping[str, str]) -> frozenset[str]:
    seen: set[str] = set()
    found: set[str] = set()
    waiting = [statement]
    while waiting:
        body = waiting.pop()
        found.update(command.lower() for command in _COMMAND.findall(body))
        for name in set(_NAME.findall(_STRING.sub("", body))) & bodies.keys() - seen:
            seen.add(name)
            waiting.append(bodies[name])
    return frozenset(found)


def _main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m circuitbreaker_contract.access", description="Prints ACL rules.")
    parser.add_argument("--user", type=User, choices=list(User), help="one line, for this kind of user")
    parser.add_argument("--namespace", default=NAMESPACE_PLACEHOLDER, help="of an app")
    parser.add_argument("--prefix", default=DEFAULT_PREFIX, help="CB_KEY_PREFIX of the installation (cb:)")
    parser.add_argument("--name", default="", help="the user's name in Redis")
    parser.add_argument("--shared", action="store_true", help="the app may use the two shared names itself")
    chosen = parser.parse_args(arguments)
    if chosen.user is None:
        sys.stdout.write(template())
        return
    if chosen.user is User.APP and chosen.namespace == NAMESPACE_PLACEHOLDER:
        parser.error("--namespace is needed for an app")
    try:
        line = rule(
            chosen.user, namespace=chosen.namespace, prefix=chosen.prefix, name=chosen.name, shared=chosen.shared
        )
    except ValueError as error:
        parser.error(str(error))
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    _main(sys.argv[1:])
