"""When Events are not waited for: only they fail, for a while, and something else was written in between."""

from circuitbreaker_operator.telling import (
    BUSY_SECONDS,
    LONGEST_BUSY_SECONDS,
    MEMORY_SECONDS,
    PATIENCE_SECONDS,
    PAUSE_SECONDS,
    TRIES,
    Telling,
)


class Story:
    """What happens at which second."""

    def __init__(self) -> None:
        self.now = 100.0
        self.telling = Telling(lambda: self.now)

    def fails(self, at: float, *, sent_at: float | None = None, namespace: str = "shop", busy: bool = False) -> bool:
        """Whether none is waited for from then on."""
        self.now = at
        return self.telling.failed(namespace, at if sent_at is None else sent_at, "503", busy=busy)

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

    def tries(self, at: float, namespace: str = "shop") -> bool:
        """Whether one is tried beside, which fails at once."""
        self.now = at
        if not self.telling.may_try(namespace):
            return False
        self.telling.failed(namespace, at, "503")
        self.telling.tried(namespace)
        return True

    def becomes_hopeless(self, namespace: str = "shop") -> None:
        """At 112."""
        assert not self.fails(100.0, namespace=namespace)
        self.accepted(101.0)
        assert self.fails(112.0, namespace=namespace)
        assert self.is_hopeless(112.0, namespace)


def test_events_alone() -> None:
    """After a while, and from then on one is tried now and then; the first that is taken ends it."""
    story = Story()
    assert not story.fails(100.0)
    story.accepted(101.0)
    assert not story.fails(101.0 + PATIENCE_SECONDS - 0.1)
    assert not story.is_hopeless(101.0 + PATIENCE_SECONDS + 30), "time alone tells nothing: the next one may be taken"
    assert story.fails(101.0 + PATIENCE_SECONDS + 30)
    assert not story.fails(142.0), "that is known by now"
    assert story.is_hopeless(142.0)
    tries = [story.tries(141.0 + at) for at in (0.0, PAUSE_SECONDS, PAUSE_SECONDS + 0.1, 2 * PAUSE_SECONDS)]
    assert tries == [False, True, False, True]
    story.posted(152.0)
    assert not story.is_hopeless(152.0)
    assert not story.telling.is_failing("shop")
    story.accepted(153.0)
    assert not story.fails(180.0), "another outage begins from the start"


def test_while_something_else_is_written_all_the_time() -> None:
    """What counts is the first of it."""
    story = Story()
    assert not story.fails(100.0)
    for at in range(101, 112):
        story.accepted(float(at))
    assert story.fails(111.0, sent_at=106.0)


def test_an_outage_of_everything() -> None:
    """However long: nothing else is written, so each Event is waited for."""
    story = Story()
    story.accepted(99.0)
    assert not any(story.fails(at) for at in (100.0, 130.0, 160.0, 230.0))
    assert not story.is_hopeless(231.0)


def test_patience_begins_when_other_writes_are_taken_again() -> None:
    """What is in the way of Events comes back somewhat later than the rest."""
    story = Story()
    assert not any(story.fails(at) for at in (100.0, 115.0, 130.0))
    story.accepted(131.0)
    assert not story.fails(132.0)
    assert not story.fails(140.9)
    assert story.fails(141.0)


def test_an_event_that_was_under_way_when_the_outage_ended() -> None:
    """It says nothing of what holds now."""
    story = Story()
    assert not story.fails(100.0)
    story.accepted(130.0)
    assert not story.fails(145.0, sent_at=129.0)
    assert story.fails(146.0, sent_at=145.0)


def test_the_first_event_that_nobody_answers() -> None:
    """What was taken while it was under way counts: else three such are waited for."""
    story = Story()
    story.accepted(109.0)
    assert not story.fails(110.0, sent_at=100.0)
    assert story.telling.is_failing("shop")
    assert story.fails(119.0, sent_at=110.0)


def test_each_namespace_by_itself() -> None:
    """Whatever fails elsewhere, for however long."""
    story = Story()
    story.becomes_hopeless()
    assert not story.is_hopeless(112.0, "bank")
    story.accepted(113.0)
    assert not any(story.fails(at, namespace="bank") for at in (114.0, 115.0, 123.0))
    story.accepted(116.0)
    assert not story.is_hopeless(124.0, "bank")
    story.posted(125.0, "bank")
    assert story.is_hopeless(125.0)


def test_tries_are_few_and_of_each_namespace() -> None:
    """One that nobody answers takes a request's place; and when one is taken the others may be as well."""
    story = Story()
    names = [f"n{number}" for number in range(TRIES + 1)]
    for name in names:
        assert not story.fails(100.0, namespace=name)
    story.accepted(101.0)
    assert all(story.fails(112.0, namespace=name) for name in names)
    story.now = 112.0 + PAUSE_SECONDS
    assert [story.telling.may_try(name) for name in names] == [True] * TRIES + [False]
    assert not story.telling.may_try(names[0]), "one is under way"
    story.fails(120.0, namespace=names[0])
    story.telling.tried(names[0])
    assert story.tries(120.0, names[-1])
    assert not story.tries(120.0 + PAUSE_SECONDS - 0.1, names[0])
    story.telling.posted(names[1])
    story.telling.tried(names[1])
    assert story.tries(120.0 + PAUSE_SECONDS - 0.1, names[0]), "at once"
    assert not story.telling.is_failing(names[1])


def test_a_try_of_an_outage_that_is_over() -> None:
    story = Story()
    story.becomes_hopeless()
    story.now = 120.0
    assert [story.telling.may_try("shop") for _ in range(2)] == [True, False]
    assert story.telling.finds_out("shop")
    story.now = 121.0
    assert not story.telling.finds_out("shop"), "nobody answers"
    story.posted(120.0)
    story.telling.tried("shop")
    assert not story.fails(121.0)
    assert not story.telling.may_try("shop"), "it is waited for"


def test_an_api_server_that_asks_to_come_back() -> None:
    """It takes some of them: they are waited for, but not for ever where it takes none."""
    story = Story()
    assert not story.fails(100.0, busy=True)
    story.accepted(101.0)
    assert not story.fails(100.0 + BUSY_SECONDS - 0.1, busy=True)
    story.posted(165.0, "bank")
    assert not story.fails(170.0, busy=True)
    assert story.fails(165.0 + BUSY_SECONDS, busy=True)
    other = Story()
    for at in range(100, 100 + int(LONGEST_BUSY_SECONDS), 50):
        assert not other.fails(float(at), busy=True)
        other.accepted(float(at))
        other.posted(float(at), "bank")
    assert other.fails(100.0 + LONGEST_BUSY_SECONDS, busy=True)


def test_more_than_asked_to_come_back() -> None:
    story = Story()
    assert not story.fails(100.0, busy=True)
    story.accepted(101.0)
    assert story.fails(112.0)


def test_a_failure_long_ago() -> None:
    """The next one begins another outage, for which there is patience again."""
    story = Story()
    story.becomes_hopeless()
    over = 112.0 + MEMORY_SECONDS
    assert story.is_hopeless(over - 0.1)
    assert not story.is_hopeless(over)
    assert not story.fails(over)
    assert not story.fails(over + 60), "nothing was taken since"
    story.accepted(over + 61)
    assert not story.fails(over + 200), "nor was it repeated for longer than anything waits"


def test_statuses_that_fail_as_well() -> None:
    """They may come back together with the Events, which would be lost: all wait for as long as at first."""
    story = Story()
    story.becomes_hopeless()
    story.unwritten(113.0)
    assert not story.is_hopeless(113.0)
    assert not story.fails(125.0)
    story.accepted(126.0)
    assert not story.fails(127.0)
    assert story.fails(136.0)


def test_one_status_that_fails_while_others_are_taken() -> None:
    """It is a fault of its own."""
    story = Story()
    story.becomes_hopeless()
    story.telling.written("shop")
    story.unwritten(112.0 + PATIENCE_SECONDS - 0.1)
    assert story.is_hopeless(122.0)
    story.unwritten(112.0 + PATIENCE_SECONDS)
    assert not story.is_hopeless(122.0)


def test_statuses_alone() -> None:
    """They say nothing of Events."""
    story = Story()
    story.unwritten(100.0)
    assert not story.telling.is_failing("shop")


def test_what_a_failed_event_tells_of_the_api_server() -> None:
    """Nothing, while it takes other writes."""
    story = Story()
    assert not story.telling.takes_others()
    story.accepted(100.0)
    story.now = 104.9
    assert story.telling.takes_others()
    story.now = 105.0
    assert not story.telling.takes_others()
