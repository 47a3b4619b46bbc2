"""Every command by its name. Its module is imported when it is called, so a start loads what one command needs."""

from collections.abc import Callable
from importlib import import_module
from typing import Final

# Name -> what its help says, in the order of the help.
COMMANDS: Final = {
    "list": "The breakers of a namespace, or of all: state, reason, counters, when they are tried again.",
    "describe": "One breaker on one page: policy in force, counters, next steps; with Redis, probes and counts of now.",
    "explain": (
        "Why a breaker is in its state: the rule with its numbers, or the person; and what changes it, and when."
    ),
    "history": (
        "Who or what changed a breaker's state, when and why: from Redis; without it, the last few of the status."
    ),
    "watch": "Transitions as they happen, one line each; it goes on when the API server ends the watch or was away.",
    "top": (
        "What needs a look now: refusals and calls a second, failure rates, time Open. Keys: q ends, s sorts otherwise."
    ),
    "trip": "Hold a breaker Open: every call is refused, until --for is over or it is released.",
    "hold-closed": "Hold a breaker Closed: every call is permitted, until --for is over or it is released.",
    "release": "End an override, whoever set it: Open is probed, Closed counts from zero.",
    "reset": "Close a breaker at once and forget its failures.",
    "simulate": "When a breaker would have opened: its rules over recorded or made calls, without a cluster.",
    "doctor": (
        "What is wrong with the installation or with breakers, and what to do; exits with 1 when there is a problem."
    ),
    "version": "The version of this program.",
}


def function(name: str) -> Callable[..., None]:
    """The command's own function: `command` of the module of its name."""
    command: Callable[..., None] = import_module(f"circuitbreaker_cli.commands.{name.replace('-', '_')}").command
    return command
