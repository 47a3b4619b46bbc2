"""When Events are not waited for: only they fail, for a while, and something else was written in between."""

from circuitbreaker_operator.telling import MEMORY_SECONDS, PATIENCE_SECONDS, PAUSE_SECONDS, Telling


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

    def is_tried(self, at: float, namespace: str = "shop") -> bool:
        self.now = at
        return self.telling.is_worth_a_try(namespace)

    def becomes_hopeless(self, namespace: str = "shop") -> None:
        """At 100 + PATIENCE_SECONDS."""
        assert not self.fails(100.0, namespace=namespace)
        self.accepted(101.0)
        assert self.fails(102.0, namespace=namespace)
        assert self.is_hopeless(100.0 + PATIENCE_SECONDS, namespace)


def test_events_alone() -> None:
    """After a while, and from then on one is tried now and then; the first that is taken ends it."""
    story = Story()
    assert not story.fails(100.0)
    story.accepted(101.0)
    assert story.fails(102.0)
    assert not story.is_hopeless(100.0 + PATIENCE_SECONDS - 0.1)
    assert story.is_hopeless(100.0 + PATIENCE_SECONDS)
    tries = [story.is_tried(at) for at in (111.0, 111.1, 111.0 + PAUSE_SECONDS, 111.1 + PAUSE_SECONDS)]
    assert tries == [True, False, True, False]
    assert story.fails(117.0), "whatever else was written: that is known by now"
    story.posted(117.0)
    assert not story.is_hopeless(118.0)
    assert story.is_tried(118.0)
    assert not story.fails(119.0), "another outage begins from the start"


def test_an_outage_of_everything() -> None:
    """However long: nothing else is written, so each Event is waited for."""
    story = Story()
    story.accepted(99.0)
    assert not any(story.fails(at) for at in (100.0, 130.0, 160.0))
    assert not story.is_hopeless(161.0)
    assert all(story.is_tried(at) for at in (161.0, 161.1))


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


def test_a_namespace_of_others() -> None:
    """Where Events are taken they are sent, whatever fails elsewhere, and that is not over for it."""
    story = Story()
    story.becomes_hopeless()
    assert not story.is_hopeless(110.0, "bank")
    assert story.is_tried(110.0)
    assert story.is_tried(110.1, "bank")
    story.posted(110.1, "bank")
    assert story.is_hopeless(110.2)
    assert not story.is_tried(110.2)
    assert not story.fails(111.0, namespace="bank"), "it has a patience of its own"
    assert not story.is_hopeless(111.0, "bank")


def test_all_namespaces() -> None:
    """The second one that fails does so for as long as the first, and no other one has to find out by itself."""
    story = Story()
    story.becomes_hopeless()
    assert story.fails(112.0, namespace="bank")
    assert [story.is_hopeless(112.0, each) for each in ("shop", "bank", "never seen")] == [True] * 3
    tries = [(each, at) for at in (112.0, 114.0, 117.0) for each in ("never seen", "bank") if story.is_tried(at, each)]
    assert tries == [("never seen", 112.0), ("never seen", 117.0)]
    story.posted(118.0, "bank")
    assert not story.is_hopeless(118.0, "never seen")
    assert story.is_tried(118.0), "at once: it may be over there as well"
    story.posted(118.1)
    assert story.is_tried(118.2)


def test_a_failure_long_ago() -> None:
    """The next one begins another outage, for which there is patience again."""
    story = Story()
    story.becomes_hopeless()
    over = 102.0 + MEMORY_SECONDS
    assert story.is_hopeless(over - 0.1)
    assert not story.is_hopeless(over)
    assert all(story.is_tried(over) for _ in range(3))
    assert not story.fails(over)
    assert not story.is_hopeless(over + 1)
    assert not story.fails(over + 2), "nothing was taken since"


def test_events_that_are_not_tried_are_remembered_as_failing() -> None:
    """The tries are of all namespaces together, and may be those of others for long."""
    story = Story()
    story.becomes_hopeless()
    assert story.is_tried(200.0)
    assert not story.is_tried(204.0)
    assert story.is_hopeless(204.0 + MEMORY_SECONDS - 0.1)
    assert not story.is_hopeless(204.0 + MEMORY_SECONDS)


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


def test_statuses_alone() -> None:
    """They say nothing of Events."""
    story = Story()
    story.unwritten(100.0)
    assert not story.fails(101.0)
    story.accepted(102.0)
    assert story.fails(103.0)
    assert story.is_hopeless(101.0 + PATIENCE_SECONDS)
