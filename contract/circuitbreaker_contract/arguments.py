"""What the functions take as arguments: the twin of functions/arguments.lua, with the same words for what is wrong."""

import re

from circuitbreaker_contract.errors import InvalidArgumentError
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.protocol import MAX_RUN, MAX_RUNS

_ID_FORM = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_KEY_FORM = re.compile(r"[^{}]*\{([^{}/]+)/([^{}/]+)\}")
_RUN_FORM = re.compile(r"([SFLMIN])([1-9][0-9]*)")
_BATCH_FORM = re.compile(rf"{_RUN_FORM.pattern}(?: {_RUN_FORM.pattern})*")


def is_id(text: str) -> bool:
    return _ID_FORM.fullmatch(text) is not None


def check_id(what: str, text: str) -> str:
    """An id: 1 to 64 of a safe alphabet. Raises InvalidArgumentError."""
    if not is_id(text):
        raise InvalidArgumentError(f'{what}: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"')
    return text


def check_whole(what: str, text: str, *, least: int = 0, most: int | None = None) -> int:
    """A whole number from `least` to `most`, by default 2^53 - 1. Raises InvalidArgumentError."""
    number = int(text) if re.fullmatch(r"[0-9]{1,16}", text) else -1
    if not least <= number <= (2**53 - 1 if most is None else most):
        bounds = f" from {least} to {most}" if most is not None else f" from {least}" if least else ""
        raise InvalidArgumentError(f"{what}: must be a whole number{bounds}")
    return number


def check_key(key: str) -> BreakerKey:
    """The breaker that a key names, under any prefix. Raises InvalidArgumentError."""
    match = _KEY_FORM.fullmatch(key)
    try:
        if match:
            return BreakerKey(match[1], match[2])
    except ValueError:
        pass
    raise InvalidArgumentError(
        "key: must be <prefix>{<namespace>/<name>}, names as Kubernetes has them, at most 63 characters"
    )


def check_batch(text: str) -> tuple[tuple[str, int], ...]:
    """The runs of a batch, in order. Raises InvalidArgumentError."""
    runs: list[tuple[str, int]] = []
    for letter, digits in _RUN_FORM.findall(text):
        if len(digits) > 7 or int(digits) > MAX_RUN:
            raise InvalidArgumentError(f"batch: a run has at most {MAX_RUN} calls")
        if len(runs) == MAX_RUNS:
            raise InvalidArgumentError(f"batch: a batch has at most {MAX_RUNS} runs")
        runs.append((letter, int(digits)))
    if not _BATCH_FORM.fullmatch(text):
        raise InvalidArgumentError('batch: must be runs like "S120 F1", letters S F L M I N')
    return tuple(runs)
