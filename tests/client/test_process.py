"""Life in a process: many threads, fork, spawn, the end of the interpreter."""

import gc
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from circuitbreaker_client import CallNotPermittedError, CircuitBreakers, State, StoreUnavailableError
from circuitbreaker_client.settings import DEFAULT_POLICY
from circuitbreaker_contract.state import Snapshot, Standing
from tests.client.world import SHORT, client_threads, fail, half_open, until, until_state


def test_32_threads_lose_nothing(world) -> None:
    """Every outcome arrives, once, in one of the totals."""
    caller, breakers = world.breaker(), world.client(flush_interval_seconds=0.002)
    charge = breakers["payments"](lambda: 5)
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(32) as pool:
            for done in [pool.submit(lambda: [charge() for _ in range(2_000)]) for _ in range(32)]:
                done.result()
    finally:
        sys.setswitchinterval(switch)
    breakers.flush()
    until(lambda: caller.observe().totals.successes == 64_000, "every report")
    statistics = breakers.statistics()["demo/payments"]
    assert (statistics.permitted, statistics.reported, statistics.dropped) == (64_000, 64_000, 0)


def recovered(seen: Snapshot, opened: Standing) -> bool:
    return seen.state is State.CLOSED and seen.order > opened.order


def test_32_threads_probe_one_by_one(world) -> None:
    """Open to Closed over and over, with the slots never over the limit."""
    # Where Redis gets no processor for 2 s a grant can be lost; its slot is free again soon.
    caller, breakers = world.breaker(policy=replace(SHORT, probe_timeout_ms=2_000)), world.client()
    payments = breakers["payments"]
    payments.call(int)
    stop = threading.Event()
    inside, most = [], []

    def work() -> None:
        while not stop.is_set():
            try:
                with payments.permit() as permit:
                    if permit.is_probe:
                        inside.append(None)
                        most.append(len(inside))
                        inside.pop()
            except CallNotPermittedError as refused:
                stop.wait(min(0.005, refused.retry_after_seconds or 0.005))

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            opened = caller.open()
            until(lambda opened=opened: recovered(caller.observe(), opened), "probes of the threads to close it")
        until_state(payments, State.CLOSED)
    finally:  # also when it fails: 32 busy threads would starve all that comes after
        stop.set()
        for thread in threads:
            thread.join()
    breakers.flush()
    assert max(most) == 1
    probes = caller.observe().probes
    assert probes.granted == probes.succeeded + probes.ignored


def test_one_thread_and_it_goes(world) -> None:
    """However many breakers; by `close`, and when nobody holds the client any more."""
    for number in range(20):
        world.breaker(f"b-{number}")
    breakers = world.client()
    assert client_threads() == [], "not before it is needed"
    for number in range(20):
        breakers[f"b-{number}"].call(int)
    assert len(client_threads()) == 1
    breakers.close()
    assert client_threads() == []
    dropped = CircuitBreakers(redis_url=world.server.url, namespace="demo")
    charge = dropped["b-1"](lambda: 5)
    del dropped
    gc.collect()
    assert charge() == 5, "what is protected holds it"
    assert len(client_threads()) == 1
    del charge
    gc.collect()
    until(lambda: not client_threads(), "the thread to end")


def test_the_garbage_collector_waits_for_no_lock(world) -> None:
    """It may find a dropped probe while this thread has the engine's lock and another one the breaker's."""
    caller, breakers = world.breaker(policy=SHORT), world.client()
    payments = breakers["payments"]
    half_open(caller, payments)
    cycle: list[object] = [payments.permit()]
    cycle.append(cycle)
    del cycle
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with payments._core.lock:
            held.set()
            go_on.wait(10)

    def collect() -> None:
        with breakers._engine._lock:
            gc.collect()

    threads = [threading.Thread(target=each, daemon=True) for each in (hold, collect)]
    threads[0].start()
    held.wait()
    threads[1].start()
    threads[1].join(5)
    in_time = not threads[1].is_alive()
    go_on.set()
    assert in_time
    until(lambda: caller.observe().probes.ignored == 1, "the probe to go back")


def test_a_breaker_is_asked_for_in_the_middle_of_close(own_world) -> None:
    """The background thread is still at its last turn, and a probe is under way."""
    caller, breakers = own_world.breaker(policy=SHORT), own_world.client()
    payments = breakers["payments"]
    half_open(caller, payments)
    permit, engine = payments.permit(), breakers._engine
    assert permit.is_probe
    own_world.server.pause()
    engine.look(payments._core)
    until(lambda: not engine._is_awake, "the thread to wait for Redis")
    engine._stopped = engine._stopping = True  # as stop() does, whose wake has just been heard
    asking = threading.Thread(target=lambda: breakers["demo/payments"], daemon=True)
    asking.start()
    asking.join(5)
    assert not asking.is_alive()
    own_world.server.resume()


def test_where_no_thread_can_be_started_the_process_decides_alone(world, monkeypatch) -> None:
    """At a limit of the system, or while the interpreter ends; as soon as one can, state is shared again."""
    caller, breakers = world.breaker(), world.client()
    payments = breakers["payments"]

    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        protected = payments(lambda: 5)
        assert [protected() for _ in range(1_000)] == [5] * 1_000
        assert payments.snapshot().degraded
        assert len(payments._core.recording.buffer) <= 1, "nobody else empties it"
        fail(payments, DEFAULT_POLICY.failure_threshold)
        assert payments.state is State.OPEN
        strict = world.client(strict=True)
        with pytest.raises(StoreUnavailableError):
            strict["payments"].call(int)
    engine = breakers._engine
    until(lambda: engine._wake() is None and not engine.is_threadless, "the thread to start")
    until(lambda: not payments.snapshot().degraded, "shared state")
    breakers.flush()
    assert caller.observe().totals.late == 1_000 + DEFAULT_POLICY.failure_threshold, "of no generation that Redis knew"


def test_no_descriptor_is_left(world) -> None:
    world.breaker()

    def one() -> None:
        with CircuitBreakers(redis_url=world.server.url, namespace="demo") as breakers:
            breakers["payments"].call(int)
            breakers.flush()

    one()
    gc.collect()
    before = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(10):
        one()
    gc.collect()
    assert len([*Path("/proc/self/fd").iterdir()]) <= before


# --- other processes -------------------------------------------------------------------------------------------------

PRELUDE = """
import os, sys, threading, time
from circuitbreaker_client import CircuitBreakers, State, Policy, CallNotPermittedError
breakers = CircuitBreakers(redis_url=sys.argv[1], namespace="demo", redis_timeout_seconds=2)
payments = breakers["payments"]
charge = payments(lambda: 5)
"""


def run(world, program: str, *, status: int = 0, complaint: str = "") -> str:
    """What another interpreter prints. It has to end by itself, in time and without another complaint than that one."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(program), world.server.url],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == status
    assert done.stderr == "" or (complaint and done.stderr.startswith(complaint)), done.stderr
    return done.stdout


def test_the_end_of_the_interpreter_sends_the_last_outcomes(world) -> None:
    caller = world.breaker()
    run(world, "for _ in range(10): charge()")
    assert caller.observe().totals.successes == 10
    run(world, "charge(); sys.exit(3)", status=3)
    assert caller.observe().totals.successes == 11


def test_the_end_gives_leases_back(world) -> None:
    caller = world.breaker(policy=SHORT)
    caller.open()
    caller.until_half_open()
    run(world, "permit = payments.permit(); assert permit.is_probe; import builtins; builtins.kept = permit")
    probes = caller.observe().probes
    assert (probes.granted, probes.ignored) == (1, 1)


def test_the_end_does_not_wait_for_a_silent_redis(own_world) -> None:
    own_world.breaker()
    out = run(
        own_world,
        f"""
        import signal
        charge()
        os.kill({own_world.server.pid}, signal.SIGSTOP)
        for _ in range(10): charge()
        import atexit
        began = time.perf_counter()
        atexit._run_exitfuncs()
        print(time.perf_counter() - began)
        """,
        complaint="Redis is silent",
    )
    own_world.server.resume()
    assert float(out) < 6


def test_an_abrupt_end_frees_its_slot_when_the_lease_ends(world) -> None:
    caller = world.breaker(policy=replace(SHORT, probe_timeout_ms=300))
    caller.open()
    caller.until_half_open()
    run(world, "permit = payments.permit(); assert permit.is_probe; os._exit(0)")
    payments = world.client()["payments"]
    until(lambda: _called(payments), "a slot")
    until(lambda: caller.observe().state is State.CLOSED, "the probe's success")
    probes = caller.observe().probes
    assert (probes.granted, probes.expired, probes.succeeded) == (2, 1, 1)


def _called(payments) -> bool:
    try:
        payments.call(int)
    except CallNotPermittedError:
        return False
    return True


FORK = """
def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            breakers.close()
            os._exit(0)
        except BaseException as error:
            print("child:", repr(error), flush=True)
            os._exit(1)
    return pid

def join(pids):
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
"""


def test_fork_after_import(world) -> None:
    """As gunicorn with preload: the parent has made the client and protected functions, children use them."""
    caller = world.breaker()
    out = run(
        world,
        FORK
        + """
pids = [child(lambda: [charge() for _ in range(100)]) for _ in range(4)]
print(join(pids))
""",
    )
    assert out == "[0, 0, 0, 0]\n"
    totals = caller.observe().totals
    assert (totals.successes, totals.failures) == (400, 0)
    assert caller.observe().reporters == 4, "each process has an id of its own"


def test_fork_after_use(world) -> None:
    """With its thread running, outcomes in the buffer, and locks perhaps held. Parent and children go on."""
    caller = world.breaker()
    out = run(
        world,
        FORK
        + """
stop = False
def busy():
    while not stop:
        charge()
        time.sleep(0)
threads = [threading.Thread(target=busy) for _ in range(4)]
[thread.start() for thread in threads]
def work():
    before = breakers.statistics()
    assert before == {}, before
    for _ in range(100): charge()
    assert breakers.statistics()["demo/payments"].permitted <= 100
results = []
for _ in range(25):
    results += join([child(work)])
stop = True
[thread.join() for thread in threads]
breakers.flush()
print(set(results), breakers.statistics()["demo/payments"].reported)
""",
    )
    results, _, reported = out.strip().rpartition(" ")
    assert results == "{0}"
    until(lambda: caller.observe().totals.successes == int(reported) + 2_500, f"{reported} and those of the children")


def test_fork_waits_for_the_end_of_a_turn(world) -> None:
    """Else the child could inherit what the thread holds just then, say the lock of a module that it imports."""
    world.breaker()
    out = run(
        world,
        FORK
        + """
from circuitbreaker_client._engine import Engine
turn, inside = Engine._turn, []
def slowly(self, **heard):
    inside.append(None)
    time.sleep(0.005)
    turn(self, **heard)
    inside.pop()
Engine._turn = slowly
charge()
def work():
    assert inside == []
    assert charge() == 5
results = []
for _ in range(20):
    charge()
    time.sleep(0.003)
    results += join([child(work)])
print(set(results))
""",
    )
    assert out == "{0}\n"


def test_fork_while_other_threads_make_clients(world) -> None:
    """Nobody is held for ever by a fork that did not know of all clients."""
    out = run(
        world,
        FORK
        + """
import threading
errors = []
sys.unraisablehook = lambda each: errors.append(repr(each.exc_value))
others = [CircuitBreakers(state_sync=False) for _ in range(30)]
sys.setswitchinterval(1e-6)
stop = threading.Event()

def make():
    while not stop.is_set():
        CircuitBreakers(state_sync=False)

makers = [threading.Thread(target=make) for _ in range(2)]
for each in makers:
    each.start()
for _ in range(20):
    join([child(lambda: None)])
stop.set()
for each in makers:
    each.join()
free = []
def look():
    free.extend(each._engine._turning.acquire(timeout=1) for each in others)
looker = threading.Thread(target=look)
looker.start()
looker.join()
print(errors, all(free))
""",
    )
    assert out == "[] True\n"


def test_a_child_does_not_settle_its_parents_probe(world) -> None:
    caller = world.breaker(policy=SHORT)
    caller.open()
    caller.until_half_open()
    out = run(
        world,
        FORK
        + """
with payments.permit() as permit:
    assert permit.is_probe
    print(join([child(permit.failure)]))
""",
    )
    assert out == "[0]\n"
    assert caller.observe().state is State.CLOSED


def run_as_file(program, world, folder):
    """As multiprocessing wants it, whose children read the program once more."""
    path = folder / "program.py"
    path.write_text(PRELUDE + textwrap.dedent(program))
    return subprocess.run(
        [sys.executable, path, world.server.url],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=folder,
    )


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(world, method, tmp_path) -> None:
    caller = world.breaker()
    done = run_as_file(
        f"""
        import multiprocessing
        def work(_):
            for _ in range(10): charge()
            breakers.flush()
            return payments.state.value
        if __name__ == "__main__":
            charge()
            with multiprocessing.get_context("{method}").Pool(3) as pool:
                print(set(pool.map(work, range(6))))
        """,
        world,
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "{'Closed'}\n", "")
    assert caller.observe().totals.successes == 61


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_process_for_each_job(world, method, tmp_path) -> None:
    """Each ends at once, within the pause between two reports. Only what outlives the main thread asks for a flush."""
    caller = world.breaker()
    done = run_as_file(
        f"""
        import multiprocessing, threading
        def later():
            threading.main_thread().join()
            charge()
            assert not breakers.statistics()["demo/payments"].degraded
            breakers.flush()
        def work():
            charge()
            threading.Thread(target=later).start()  # goes on when this has returned
        if __name__ == "__main__":
            charge()
            for _ in range(5):
                job = multiprocessing.get_context("{method}").Process(target=work)
                job.start()
                job.join()
                assert job.exitcode == 0
        """,
        world,
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert caller.observe().totals.successes == 11


def test_a_process_that_makes_calls_while_it_imports_its_program(world, tmp_path) -> None:
    """What a child of multiprocessing is to do at its end is cleared after that."""
    caller = world.breaker()
    done = run_as_file(
        """
        import multiprocessing
        charge()
        def work():
            charge()
        if __name__ == "__main__":
            for _ in range(5):
                job = multiprocessing.get_context("forkserver").Process(target=work)
                job.start()
                job.join()
                assert job.exitcode == 0
        """,
        world,
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert caller.observe().totals.successes == 11


def test_open_in_one_process_is_open_in_the_others(world) -> None:
    world.breaker()
    payments = world.client()["payments"]
    payments.call(int)
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            PRELUDE + "charge(); print('ready', flush=True)\nwhile payments.state is State.CLOSED: time.sleep(0.001)\n"
            "print(payments.state.value)",
            world.server.url,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    fail(payments, 3)
    assert child.communicate(timeout=10)[0] == "Open\n"
