"""What counts: how the end of a call becomes a success, a failure or nothing.

An exception that matches `ignore` is ignored; one that matches `failure` is a failure; any other Exception means that
the dependency has answered, and counts as a success. What is no Exception (a cancelled task, KeyboardInterrupt,
GeneratorExit) says nothing about the dependency and is ignored, unless `failure` names its class; functions are not
asked about it.

In a buffer an outcome is one float, so that recording is one append: a duration in seconds (success), or -1 minus the
duration (failure), or -inf (ignored). Slow or not is told apart when the buffer is emptied.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypedDict

from circuitbreaker_contract.state import Outcome

ExceptionTypes = type[BaseException] | tuple[type[BaseException], ...]
ExceptionTest = Callable[[BaseException], bool]
FailureRule = ExceptionTypes | ExceptionTest
"""Classes of exceptions, or a function that says of an Exception whether it belongs."""


class Rules(TypedDict, total=False):
    """How a protected function is judged, and by which breaker.

    `failure` (Exception) and `ignore` (none): classes, or a function that says of an exception whether it is one.
    `result`: says of a returned value whether it is a failure. `name`: given the call's arguments it names the breaker
    for this call, None for the one that protects; at most `max_breakers` are kept.
    """

    failure: FailureRule
    ignore: FailureRule
    result: Callable[[Any], bool] | None
    name: Callable[..., str | None] | None


FAILURE: Final[FailureRule] = (Exception,)
IGNORED: Final = float("-inf")
_FAILED: Final = -1.0


def failed(duration_seconds: float) -> float:
    return _FAILED - duration_seconds


def is_failure(mark: float) -> bool:
    return IGNORED < mark < 0.0


def outcome_of(mark: float, slow_seconds: float) -> Outcome:
    """The letter of a mark; a call is slow when it took longer than `slow_seconds`."""
    if mark >= 0.0:
        return Outcome.SLOW_SUCCESS if mark > slow_seconds else Outcome.SUCCESS
    if mark == IGNORED:
        return Outcome.IGNORED
    return Outcome.SLOW_FAILURE if _FAILED - mark > slow_seconds else Outcome.FAILURE


def runs_of(marks: Sequence[float], slow_seconds: float) -> list[tuple[str, int]]:
    """Marks in order as runs of (letter, count)."""
    if min(marks) >= 0.0 and max(marks) <= slow_seconds:
        return [(Outcome.SUCCESS.value, len(marks))]  # nearly always, and at the speed of C
    runs: list[tuple[str, int]] = []
    last, count = "", 0
    for mark in marks:
        letter = "S" if 0.0 <= mark <= slow_seconds else outcome_of(mark, slow_seconds).value
        if letter == last:
            count += 1
        else:
            if count:
                runs.append((last, count))
            last, count = letter, 1
    runs.append((last, count))
    return runs


class Classifier:
    """The rules of one protected function or block."""

    __slots__ = ("_failure", "_ignore", "result")

    def __init__(
        self,
        failure: FailureRule = FAILURE,
        ignore: FailureRule = (),
        result: Callable[[Any], bool] | None = None,
    ) -> None:
        self._failure = _test(failure, "failure")
        self._ignore = _test(ignore, "ignore")
        self.result = result

    def mark(self, error: BaseException, duration_seconds: float) -> float:
        """The mark of a call that raised `error`."""
        if self._ignore(error):
            return IGNORED
        if self._failure(error):
            return failed(duration_seconds)
        return duration_seconds if isinstance(error, Exception) else IGNORED

    def mark_of_result(self, value: object, duration_seconds: float) -> float:
        """The mark of a call that returned `value`."""
        if self.result is not None and self.result(value):
            return failed(duration_seconds)
        return duration_seconds


def _test(rule: FailureRule, what: str) -> ExceptionTest:
    classes = rule if isinstance(rule, tuple) else (rule,)
    if all(isinstance(each, type) and issubclass(each, BaseException) for each in classes):
        return lambda error: isinstance(error, classes)  # type: ignore[arg-type]
    if isinstance(rule, tuple | type) or not callable(rule):
        raise TypeError(f"{what}: must be exception classes, or a function that takes an exception; not {rule!r}")
    return lambda error: isinstance(error, Exception) and rule(error)


DEFAULT_CLASSIFIER: Final = Classifier()


def classifier_of(failure: FailureRule, ignore: FailureRule) -> Classifier:
    """Most blocks have no rules of their own, and making the two tests costs more than the rest of a permit."""
    return DEFAULT_CLASSIFIER if failure is FAILURE and ignore == () else Classifier(failure, ignore)
