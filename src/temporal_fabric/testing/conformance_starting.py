"""Conformance: at most one job per attempt, whatever happens to the calls that start it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from temporal_fabric.adapters.contract import JobHandle, Phase
from temporal_fabric.errors import PermanentBackendError, TransientBackendError
from temporal_fabric.testing.bench import Bench, Fault, require

if TYPE_CHECKING:
    from temporal_fabric.adapters.contract import Adapter, AttemptKey, AttemptSpec, JobStatus

END_S = 60.0
"""How long a payload of the suite may take on a busy machine."""

QUIET_S = 0.7
"""How long a job that must not be has to show itself."""

REPORTING = "report('start'); time.sleep({seconds}); report('end')"


async def ended(adapter: Adapter, key: AttemptKey) -> JobStatus:
    """Return the status at the end of the attempt's job."""
    status = await adapter.wait(JobHandle(key, ""), END_S)
    require(
        status.phase is not Phase.RUNNING, f"wait returns at the end: still {status} at {END_S} s"
    )
    return status


async def began(bench: Bench, key: AttemptKey, event: str = "start", count: int = 1) -> None:
    """Return when the payload has reported so often."""
    async with asyncio.timeout(END_S):
        while bench.effects(key, event) < count:  # noqa: ASYNC110 - another process's file
            await asyncio.sleep(0.02)


async def _ran_once(bench: Bench, key: AttemptKey) -> None:
    status = await ended(bench.adapter(), key)
    require(status.phase is Phase.ENDED, f"the job ends: {status}")
    require(status.exit_code == 0, f"the job ends well: {status}")
    await asyncio.sleep(QUIET_S)
    for event in ("start", "end"):
        count = bench.effects(key, event)
        require(count == 1, f"one attempt is one job: its {event!r} was seen {count} times")


async def _ran_once_or_asks(bench: Bench, key: AttemptKey) -> None:
    """See `_ran_once`; or nobody can know, the job is no success, and a person is asked."""
    status = await ended(bench.adapter(), key)
    if not (bench.asks_people and status.question):
        await _ran_once(bench, key)
        return
    require(status.phase is Phase.ENDED and status.reason, f"what is unknown has failed: {status}")
    await asyncio.sleep(QUIET_S)
    count = bench.effects(key, "start")
    require(count <= 1, f"one attempt is one job: its 'start' was seen {count} times")


async def _refused(bench: Bench, attempt: AttemptSpec) -> None:
    """Submit and see that nothing runs; refusing by an error or in silence are both right."""
    before = bench.effects(attempt.key, "start")
    adapter = bench.adapter()
    with suppress(PermanentBackendError):
        await adapter.submit(attempt)
    await asyncio.sleep(QUIET_S)
    status = await adapter.find(attempt.key)
    require(status.phase is not Phase.RUNNING, f"a refused attempt does not run: {status}")
    require(bench.effects(attempt.key, "start") == before, "a refused attempt has no effect")


async def an_unknown_key_is_absent(bench: Bench) -> None:
    """What was never submitted is ABSENT, and looking does not change that."""
    adapter, key = bench.adapter(), bench.key()
    for _ in range(2):
        status = await adapter.find(key)
        require(status.phase is Phase.ABSENT, f"an unknown key is ABSENT: {status}")
    attempt = bench.attempt(key, REPORTING.format(seconds=0))
    await adapter.submit(attempt)
    await _ran_once(bench, key)


async def submit_twice_is_one_job(bench: Bench) -> None:
    """A second submit adopts the job of the first, while it runs and after its end."""
    key = bench.key()
    attempt = bench.attempt(key, REPORTING.format(seconds=0.5))
    first = await bench.adapter().submit(attempt)
    require(first.key == key, f"the handle has the attempt's key: {first}")
    again = await bench.adapter().submit(attempt)
    require(again.native_id == first.native_id, f"the same job: {first} and {again}")
    await ended(bench.adapter(), key)
    await bench.adapter().submit(attempt)
    await _ran_once(bench, key)


async def six_racing_submits_are_one_job(bench: Bench) -> None:
    """Six workers that submit one attempt at once start it once."""
    key = bench.key()
    attempt = bench.attempt(key, REPORTING.format(seconds=0.3))
    racing = [bench.adapter().submit(attempt) for _ in range(6)]
    answers = await asyncio.gather(*racing, return_exceptions=True)
    for answer in answers:
        right = isinstance(answer, JobHandle | TransientBackendError)
        require(right, f"a racing submit adopts, or is transient: {answer!r}")
    require(any(isinstance(answer, JobHandle) for answer in answers), f"one wins: {answers}")
    await _ran_once(bench, key)


async def _submit_with(bench: Bench, fault: Fault) -> None:
    key = bench.key()
    attempt = bench.attempt(key, REPORTING.format(seconds=0.3))
    try:
        await (await bench.faulty("submit", fault)).submit(attempt)
    except TransientBackendError:
        pass
    except PermanentBackendError as exc:
        status = await bench.adapter().find(key)
        require(
            status.phase is Phase.ABSENT,
            f"a permanent error promises that no job exists: {exc!r}, then {status}",
        )
    await bench.adapter().submit(attempt)
    await _ran_once_or_asks(bench, key)


async def a_submit_that_was_lost_can_be_repeated(bench: Bench) -> None:
    """A submit that never reached the backend is transient; its repetition starts the job."""
    await _submit_with(bench, Fault.LOST_REQUEST)


async def a_submit_without_an_answer_is_adopted(bench: Bench) -> None:
    """A submit whose answer is lost may have started the job: its repetition adopts it."""
    await _submit_with(bench, Fault.LOST_REPLY)


async def a_submit_given_up_is_adopted(bench: Bench) -> None:
    """A worker that gives up before the answer comes leaves a job that the next one adopts."""
    key = bench.key()
    attempt = bench.attempt(key, REPORTING.format(seconds=0.3))
    slow = await bench.faulty("submit", Fault.LATE_REPLY)
    with suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            await slow.submit(attempt)
    await slow.aclose()
    await bench.adapter().submit(attempt)
    await _ran_once(bench, key)


async def a_new_adapter_adopts_the_job(bench: Bench) -> None:
    """A job outlives its adapter: a new one finds it by its key, and sees its end."""
    key = bench.key()
    first = bench.adapter()
    job = await first.submit(bench.attempt(key, REPORTING.format(seconds=1.0)))
    await began(bench, key)
    await first.aclose()
    status = await bench.adapter().find(key)
    require(status.phase is Phase.RUNNING, f"a new adapter finds the job: {status}")
    require(status.native_id == job.native_id, f"it is the same job: {job}, {status}")
    await _ran_once(bench, key)


async def attempts_are_not_confused(bench: Bench) -> None:
    """Tenants and epochs are part of the key: each attempt has its own job and its own end."""
    adapter, keys = bench.adapter(), [bench.key(), bench.key(tenant="other")]
    keys += [bench.next_epoch(keys[0], 2)]
    for code, key in enumerate(keys, 1):
        await adapter.submit(bench.attempt(key, f"report('start'); sys.exit({code})"))
    codes = [bench.exit_code(await ended(adapter, key)) for key in keys]
    require(codes == [1, 2, 3], f"each attempt ends as its own payload does: {codes}")


async def a_stale_epoch_is_refused(bench: Bench) -> None:
    """A terminated epoch never starts again, and does not touch the one after it."""
    old = bench.key()
    new = bench.next_epoch(old, 2)
    adapter = bench.adapter()
    stale = bench.attempt(old, REPORTING.format(seconds=60))
    await adapter.submit(stale)
    await began(bench, old)
    await adapter.terminate(old, 0.0)
    await adapter.submit(bench.attempt(new, REPORTING.format(seconds=2)))
    await began(bench, new)
    await _refused(bench, stale)
    await adapter.terminate(old, 0.0)
    await _ran_once(bench, new)


async def what_was_terminated_first_never_starts(bench: Bench) -> None:
    """Terminating what never existed forbids it: the submit that was under way comes too late."""
    key = bench.key()
    status = await bench.adapter().terminate(key, 0.0)
    require(status.phase is not Phase.RUNNING, f"nothing runs after terminate: {status}")
    await _refused(bench, bench.attempt(key, REPORTING.format(seconds=0)))


async def what_was_forgotten_never_starts(bench: Bench) -> None:
    """A forgotten attempt stays refused; forgetting it twice changes nothing."""
    key = bench.key()
    attempt = bench.attempt(key, REPORTING.format(seconds=0))
    adapter = bench.adapter()
    await adapter.submit(attempt)
    await ended(adapter, key)
    for _ in range(2):
        await bench.adapter().forget(key)
    await _refused(bench, attempt)


STARTING = (
    an_unknown_key_is_absent,
    submit_twice_is_one_job,
    six_racing_submits_are_one_job,
    a_submit_that_was_lost_can_be_repeated,
    a_submit_without_an_answer_is_adopted,
    a_submit_given_up_is_adopted,
    a_new_adapter_adopts_the_job,
    attempts_are_not_confused,
    a_stale_epoch_is_refused,
    what_was_terminated_first_never_starts,
    what_was_forgotten_never_starts,
)
