"""When Events are not waited for: only they fail, for a while, and something else was written in between."""

from contextlib import ExitStack

from circuitbreaker_operator.telling import (
    BUSY_SECONDS,
    FEW,
    MEMORY_SECONDS,
    PATIENCE_SECONDS,
    PAUSE_SECONDS,
    Chance,
    Telling,
)

DROP, SEND, WAIT = Chance.DROP, Chance.SEND, Chance.WAIT


class Story:
    """What happens at which second."""

    def __init__(self) -> None:
        self.now = 100.0
        self.telling = Telling(lambda: self.now)

    def fails(self, at: float, *, sent_at: float | None = None, namespace: str = "shop") -> bool:
        self.now = at
        return self.telling.failed(namespace, at if sent_at is None else sent_at, "503")

    def accepted(self, at: float) -> None:
        self.now = at
        self.telling.accepted()

    def posted(self, at: float, namespace: str = "shop") -> None:
        self.now = at
        self.telling.posted(namespace)

    def unwritten(self, at: float) -> None:
        self.now = at
        self.telling.unwritten("shop")

    def is_hopeless(self, at: float, namespace: str = "shop") -> bool:
        self.now = at
        return self.telling.is_hopeless(namespace)

    def chance(self, at: float, namespace: str = "shop") -> Chance:
        self.now = at
        return self.telling.chance(namespace)

    def tries(self, at: float, namespace: str = "shop") -> bool:
        """Whether one is sent, which fails at once."""
        if self.chance(at, namespace) is not Chance.SEND:
            return False
        with self.telling.sending(namespace):
            self.telling.failed(namespace, at, "503")
        return True

    def becomes_hopeless(self) -> None:
        """At 100 + PATIENCE_SECONDS."""
        self.becomes_hopeless_at(100.0, "shop")

    def becomes_hopeless_at(self, at: float, namespace: str) -> None:
        assert not self.fails(at, namespace=namespace)
        self.accepted(at + 1)
        assert self.fails(at + 2, namespace=namespace)
        assert self.is_hopeless(at + PATIENCE_SECONDS, namespace)

    def becomes_busy(self) -> None:
        """The same of an API server that asks to come back later, from 100 on."""
        self.now = 100.0
        assert not self.telling.failed("shop", 100.0, "429", busy=True)
        self.accepted(101.0)
        assert self.telling.failed("shop", 102.0, "429", busy=True)


def test_events_alone() -> None:
    """After a while, and from then on one is tried now and then; the first that is taken ends it."""
    story = Story()
    assert not story.fails(100.0)
    story.accepted(101.0)
    assert story.fails(102.0)
    assert not story.is_hopeless(100.0 + PATIENCE_SECONDS - 0.1)
    assert story.is_hopeless(100.0 + PATIENCE_SECONDS)
    tries = [story.tries(at) for at in (111.0, 111.1, 111.0 + PAUSE_SECONDS, 111.1 + PAUSE_SECONDS)]
    assert tries == [True, False, True, False]
    assert story.chance(116.2) is DROP
    assert story.fails(117.0), "whatever else was written: that is known by now"
    story.posted(117.0)
    assert not story.is_hopeless(118.0)
    assert story.chance(118.0) is SEND
    assert not story.fails(119.0), "another outage begins from the start"


def test_an_outage_of_everything() -> None:
    """However long: nothing else is written, so each Event is waited for."""
    story = Story()
    story.accepted(99.0)
    assert not any(story.fails(at) for at in (100.0, 130.0, 160.0))
    assert not story.is_hopeless(161.0)
    assert all(story.chance(at) is SEND for at in (161.0, 161.1))


def test_an_event_that_was_under_way_when_the_outage_ended() -> None:
    """It says nothing of what holds now."""
    story = Story()
    assert not story.fails(100.0)
    story.accepted(130.0)
    assert not story.fails(131.0, sent_at=129.0)
    assert not story.is_hopeless(131.0)
    assert story.fails(132.0)


def test_events_that_fail_slowly_while_something_is_written_all_the_time() -> None:
    """What counts is the first write since they fail: the last one always comes while an Event is under way."""
    story = Story()
    assert not story.fails(100.0)
    for at in range(101, 111):
        story.accepted(float(at))
    assert story.fails(110.5, sent_at=100.5 + 1)
    assert story.is_hopeless(110.5)


def test_while_one_is_tried() -> None:
    """Others wait for what it finds out, but not for one that nobody answers."""
    story = Story()
    story.becomes_hopeless()
    story.now = 120.0
    with story.telling.sending("shop"):
        assert [story.chance(at) for at in (120.1, 120.9)] == [WAIT, WAIT]
        assert [story.chance(at) for at in (121.0, 129.0)] == [DROP, DROP]
        assert story.fails(130.0, sent_at=120.0)
    assert story.chance(130.0 + PAUSE_SECONDS - 0.1) is DROP
    with story.telling.sending("shop"):
        story.posted(136.0)
    assert story.chance(136.0) is SEND


def test_a_namespace_of_others() -> None:
    """Where Events are taken they are sent, whatever fails elsewhere, and that is not over for it."""
    story = Story()
    story.becomes_hopeless()
    assert not story.is_hopeless(110.0, "bank")
    assert story.tries(110.0)
    assert story.chance(110.1, "bank") is SEND
    story.posted(110.1, "bank")
    assert story.is_hopeless(110.2)
    assert story.chance(110.2) is DROP
    assert not story.fails(111.0, namespace="bank"), "it has a patience of its own"
    assert not story.is_hopeless(111.0, "bank")


def test_several_namespaces_and_one_where_nothing_failed() -> None:
    """It is asked itself, whatever is known of the others."""
    story = Story()
    story.becomes_hopeless()
    assert [story.tries(at, "bank") for at in (110.0, 111.0)] == [True, True]
    assert story.is_hopeless(111.0, "bank")
    assert not story.is_hopeless(112.0, "never seen")
    assert story.chance(112.0, "never seen") is SEND


def test_each_namespace_has_tries_of_its_own() -> None:
    """A busy one does not take those of one where the webhook is gone."""
    story = Story()
    story.becomes_hopeless()
    story.posted(110.0, "other")
    story.now = 200.0
    story.becomes_hopeless_at(200.0, "bank")
    for at in (220.0, 221.0, 222.0, 223.0, 224.0):
        story.tries(at)
    assert story.chance(224.1, "bank") is SEND
    story.posted(224.1, "bank")
    assert story.chance(224.2, "bank") is SEND
    assert story.chance(224.2) is SEND, "at once: it may be over there as well"


def test_all_namespaces() -> None:
    """What is known by the first is not waited for in the others, once it is no accident."""
    story = Story()
    story.becomes_hopeless()
    assert not story.fails(112.0, namespace="bank"), "one failure may be one"
    assert not story.is_hopeless(112.0, "bank")
    assert story.chance(112.5, "bank") is SEND
    assert story.fails(112.5, namespace="bank")
    assert story.is_hopeless(112.5, "bank")
    assert story.fails(130.0, sent_at=128.0, namespace="zoo"), "two seconds without an answer are none"
    assert story.is_hopeless(130.0, "zoo")
    story.posted(131.0, "bank")
    assert not story.fails(132.0, namespace="farm")
    assert not story.fails(133.0, namespace="farm"), "they are taken again where they were not"
    assert not story.is_hopeless(133.0, "farm")


def test_few_at_once_where_they_may_well_fail() -> None:
    """One that nobody answers takes a request's place for long; others wait, and statuses have places."""
    story = Story()
    story.becomes_hopeless()
    assert story.fails(110.0, sent_at=105.0, namespace="bank")
    with ExitStack() as under_way:
        for number in range(FEW):
            assert story.chance(111.0, f"new-{number}") is SEND
            under_way.enter_context(story.telling.sending(f"new-{number}"))
        assert story.chance(111.0, "another") is WAIT
        assert story.chance(111.0) is DROP
    assert story.chance(111.0, "another") is SEND
    assert story.chance(111.0) is SEND
    story.posted(112.0, "healthy")
    with ExitStack() as under_way:
        for number in range(FEW + 1):
            assert story.chance(112.0, f"new-{number}") is SEND, "Events are taken elsewhere"
            under_way.enter_context(story.telling.sending(f"new-{number}"))


def test_an_api_server_that_asks_to_come_back() -> None:
    """It takes some of them: they are waited for, for as long as it takes any."""
    story = Story()
    story.becomes_busy()
    assert not story.is_hopeless(100.0 + BUSY_SECONDS - 0.1)
    story.posted(150.0, "bank")
    assert not story.is_hopeless(150.0 + BUSY_SECONDS - 0.1)
    assert story.is_hopeless(150.0 + BUSY_SECONDS)


def test_more_than_asked_to_come_back() -> None:
    story = Story()
    story.becomes_busy()
    assert story.fails(103.0)
    assert story.is_hopeless(100.0 + PATIENCE_SECONDS)


def test_a_failure_long_ago() -> None:
    """The next one begins another outage, for which there is patience again."""
    story = Story()
    story.becomes_hopeless()
    over = 102.0 + MEMORY_SECONDS
    assert story.is_hopeless(over - 0.1)
    assert not story.is_hopeless(over)
    assert all(story.chance(over) is SEND for _ in range(3))
    assert not story.fails(over)
    assert not story.is_hopeless(over + 1)
    assert not story.fails(over + 2), "nothing was taken since"


def test_statuses_that_fail_as_well() -> None:
    """They may come back together with the Events, which would be lost: all wait for as long as at first."""
    story = Story()
    story.becomes_hopeless()
    story.unwritten(111.0)
    assert not story.is_hopeless(111.0)
    assert not story.fails(112.0)
    story.accepted(113.0)
    assert story.fails(114.0)
    assert not story.is_hopeless(111.0 + PATIENCE_SECONDS - 0.1)
    assert story.is_hopeless(111.0 + PATIENCE_SECONDS)


def test_one_status_that_fails_while_others_are_taken() -> None:
    """It is a fault of its own."""
    story = Story()
    story.becomes_hopeless()
    story.now = 111.0
    story.telling.written("shop")
    story.unwritten(111.0 + PATIENCE_SECONDS - 0.1)
    assert story.is_hopeless(121.0)
    story.unwritten(111.0 + PATIENCE_SECONDS)
    assert not story.is_hopeless(121.0)


def test_statuses_alone() -> None:
    """They say nothing of Events."""
    story = Story()
    story.unwritten(100.0)
    assert not story.fails(101.0)
    story.accepted(102.0)
    assert story.fails(103.0)
    assert story.is_hopeless(101.0 + PATIENCE_SECONDS)
