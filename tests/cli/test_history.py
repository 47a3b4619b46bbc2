"""history and the last hour, on the real API server and a real Redis with a real operator."""

from dataclasses import replace

from circuitbreaker_local.processes import free_port
from tests.cli.shell import Shell
from tests.cluster.world import World

HOSTILE = "\x1b[2J[red]x[/red]\r\n\u202e"


def test_who_what_and_why(operated: World, shell: Shell) -> None:
    """From Redis, newest last; a person is known by the Event also when the override is over."""
    operated.create("payments", failureThreshold=2, recoveryTimeout="1h")
    operated.until_ready("payments")
    operated.fleet("payments").open()
    operated.until_state("payments", "Open")
    shell.run("hold-closed", "payments", "--reason", "let them through", "-y")
    shell.run("release", "payments", "-y")
    operated.until(lambda: "CircuitForced" in operated.events("payments"), "the Event")
    with_redis = replace(shell, environment={"CB_REDIS_URL": operated.server.url})
    head, *rows = with_redis.run("history", "payments", "-o", "wide").out.splitlines()
    assert head.split()[:7] == ["WHEN", "AGO", "FROM", "TO", "REASON", "BY", "GENERATION"]
    story = [
        ["(new)", "Closed", "Created", "operator", "1"],
        ["Closed", "Open", "ConsecutiveFailures", "calls", "2"],
        ["Open", "Closed", "Forced", "kubectl-breaker", "3"],
        ["Closed", "Closed", "OverrideExpired", "override", "4"],
    ]
    assert [row.split()[2:7] for row in rows] == story
    assert "2 calls, 2 failed, 0 slow   2 consecutive failures reached failureThreshold 2" in rows[1]
    assert "held Closed: let them through" in rows[2]
    newest = with_redis.run("history", "payments", "--limit", "2", "-o", "json").json
    assert (newest["name"], newest["source"], newest["foreign"], newest["damaged"]) == ("payments", "redis", False, 0)
    assert [each["stateGeneration"] for each in newest["transitions"]] == [3, 4]
    assert (newest["transitions"][0]["by"], newest["transitions"][0]["note"]) == ("kubectl-breaker", "let them through")
    from_status = shell.run("history", "payments")
    assert "from the status" in from_status.err
    assert "CB_REDIS_URL" in from_status.err
    assert [row.split()[2:7] for row in from_status.out.splitlines()[1:]] == story
    assert "Open once" in shell.run("describe", "payments").out


def test_what_redis_holds_is_not_believed(operated: World, shell: Shell) -> None:
    """Whoever may write there may write anything; and what is not there is said."""
    operated.create("payments")
    operated.until_ready("payments")
    url, key = operated.server.url, f"{operated.fleet('payments').key}:history"
    good = operated.redis.xrevrange(key, count=1)[0][1]
    for wrong in ({"at": "soon"}, {"state": "Ajar"}, {"generation": "-1"}, {"windowCalls": "nan"}):
        operated.redis.xadd(key, good | wrong)
    operated.redis.xadd(key, {"x": "y"})
    operated.redis.xadd(key, good | {"reason": "Forced", "note": HOSTILE, "generation": "2"})
    shown = shell.at_terminal("history", "payments", "--redis-url", url).out
    assert "5 entries are damaged and left out" in shown
    assert "[red]x[/red]" in shown
    assert "● Closed" in shown
    assert "\x1b[2J" not in shown
    assert "\u202e" not in shown
    told = shell.run("history", "payments", "-o", "json", "--redis-url", url)
    assert (told.json["damaged"], len(told.json["transitions"])) == (5, 2)
    operated.redis.delete(key)
    empty = shell.run("history", "payments", "--redis-url", url)
    assert (empty.out, empty.err) == ("", f"{operated.namespace}/payments has no transitions yet\n")
    host = url.removeprefix("redis://").partition("/")[0]
    for where, said in (
        (f"redis://127.0.0.1:{free_port()}/0", "redis cannot be reached"),
        (f"redis://nobody:secret@{host}/0", "refuses the login"),
        (f"redis://{host}/9", "another redis or cb_key_prefix"),
    ):
        failed = shell.run("history", "payments", "--redis-url", where, code=1)
        assert said in failed.err.lower(), (where, failed.err)
        assert (failed.out, "secret" in failed.err) == ("", False)
    assert "NotFound" in shell.run("history", "nobody", "--redis-url", url, code=1).err
