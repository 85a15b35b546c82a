"""Conformance: every end is told as it was, and terminated means gone."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from temporal_fabric.adapters.capabilities import Executing, Pausing
from temporal_fabric.adapters.contract import JobHandle, Phase
from temporal_fabric.states import Reason
from temporal_fabric.testing.bench import NotApplicable, patiently, require
from temporal_fabric.testing.conformance_starting import QUIET_S, began, ended

if TYPE_CHECKING:
    from temporal_fabric.adapters.contract import AttemptKey, JobStatus
    from temporal_fabric.testing.bench import Bench

_LINES = 300
_SPEAKING = f"""
for number in range({_LINES}):
    sys.stdout.write(f'line {{number}} ' + 'x' * (number % 50) + chr(10))
    sys.stdout.flush()
    if number % 30 == 0:
        report('spoke')
        time.sleep(0.05)
"""

_STUBBORN = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def run(name):
    report(name)
    while True:
        report('tick')
        time.sleep(0.05)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        run('grandchild')
    os._exit(0)
run('parent')
"""


async def _end_of(bench: Bench, code: str, **more: object) -> JobStatus:
    key = bench.key()
    adapter = bench.adapter()
    await adapter.submit(bench.attempt(key, code, **more))
    status = await ended(adapter, key)
    found = await bench.adapter().find(key)
    seen = (found.phase, found.exit_code, found.signal, found.reason)
    told = (status.phase, status.exit_code, status.signal, status.reason)
    require(seen == told, f"find tells the same end as wait: {found} and {status}")
    return status


async def the_exit_code_is_told(bench: Bench) -> None:
    """A process that exits is ENDED with its own code, and with nothing else."""
    for code in (0, 3):
        status = await _end_of(bench, f"sys.exit({code})")
        require(status.phase is Phase.ENDED, f"it is ENDED: {status}")
        told = (bench.exit_code(status), status.signal)
        require(told == (code, None), f"exit {code}: {status}")
        require((status.exit_code == 0) == (code == 0), f"only 0 is success: {status}")
        require(not status.reason, f"it chose its end itself: {status}")


async def a_signal_is_told(bench: Bench) -> None:
    """A process that a signal kills is no success, whatever form the backend gives to it."""
    status = await _end_of(bench, "os.kill(os.getpid(), signal.SIGKILL)")
    require(status.phase is Phase.ENDED, f"it is ENDED: {status}")
    told = signal.SIGKILL in {status.signal, (bench.exit_code(status) or 128) - 128}
    require(told, f"the signal is told: {status}")


async def the_wall_limit_is_told(bench: Bench) -> None:
    """A job over its wall limit is ended, and the reason is TIMEOUT."""
    code = "signal.signal(signal.SIGTERM, lambda *a: sys.exit(0)); time.sleep(120)"
    status = await _end_of(bench, code, limits={"wall_s": 1, "grace_s": 5})
    require(status.reason == Reason.TIMEOUT, f"the reason is TIMEOUT, not success: {status}")


async def a_kill_for_memory_is_told(bench: Bench) -> None:
    """A child killed for memory is counted, though the payload itself exits with 0."""
    limits = {"memory_bytes": 64 * 2**20, "wall_s": 60}
    code = "if os.fork() == 0:\n    found = bytearray(2**29)\nos.wait()\nsys.exit(0)"
    verdict = await bench.adapter().can_fulfill(bench.request(code, limits=limits))
    if not verdict.ok:
        raise NotApplicable(f"it takes no such request: {'; '.join(verdict.reasons)}")
    status = await _end_of(bench, code, limits=limits)
    require(status.oom_kills or status.reason == Reason.OOM, f"the kill is told: {status}")


async def a_program_that_is_not_there_fails(bench: Bench) -> None:
    """A payload that cannot be executed has an end with a reason, not an exit code of 0."""
    code = "os.execv('/nonexistent/program', ['x'])"
    status = await _end_of(bench, code)
    require(status.phase is not Phase.RUNNING, f"it has an end: {status}")
    require(status.exit_code != 0 or status.reason, f"it is no success: {status}")


async def wait_returns_at_its_limit(bench: Bench) -> None:
    """A wait that ends before the job says RUNNING; a status asked for then says the same."""
    key, adapter = bench.key(), bench.adapter()
    job = await adapter.submit(bench.attempt(key, "report('start'); time.sleep(120)"))
    await began(bench, key)
    for look in (adapter.wait(job, 0.2), adapter.get_status(job), adapter.find(key)):
        status = await look
        require(status.phase is Phase.RUNNING, f"it still runs: {status}")
        require(status.exit_code is None, f"what runs has no exit code: {status}")
    require((await adapter.inventory()).running >= 1, "the inventory counts what runs")


async def outputs_are_there_at_the_end(bench: Bench) -> None:
    """What was written is in the attempt's folder once the end is told; nothing else is."""
    key = bench.key()
    code = "open(os.environ['FABRIC_OUTPUT_DIR'] + '/out', 'w').write('written')"
    await bench.adapter().submit(bench.attempt(key, code))
    await ended(bench.adapter(), key)
    found = bench.outputs(key)
    require(found == {"out": "written"}, f"the output is there, and only it: {found}")
    without = bench.key()
    await bench.adapter().submit(bench.attempt(without, "pass"))
    await ended(bench.adapter(), without)
    found = bench.outputs(without)
    require(not found, f"a missing output stays missing: {found}")


async def _log(bench: Bench, key: AttemptKey, offset: int) -> bytes:
    pieces = bench.adapter().stream_logs(JobHandle(key, ""), offset)
    return b"".join([piece async for piece in pieces])


async def no_line_is_lost_or_doubled(bench: Bench) -> None:
    """A log read in pieces by new adapters, each from where the last one ended, is whole."""
    key = bench.key()
    await bench.adapter().submit(bench.attempt(key, _SPEAKING))
    whole = b""
    for count in range(2, 7, 2):
        await began(bench, key, "spoke", count)
        whole += await _log(bench, key, len(whole))
    await ended(bench.adapter(), key)
    whole += await _log(bench, key, len(whole))
    lines = [f"line {number} {'x' * (number % 50)}\n" for number in range(_LINES)]
    require(whole == await _log(bench, key, 0), "read in pieces, it is the same as read at once")
    spoken = bench.spoken(key, whole)
    require(spoken == "".join(lines).encode(), f"it is whole: {len(whole)} bytes")
    middle = len(whole) // 2
    require(await _log(bench, key, middle) == whole[middle:], "an offset is a count of bytes")
    require(await _log(bench, key, len(whole)) == b"", "there is nothing after the end")


async def terminated_means_gone(bench: Bench) -> None:
    """Terminate returns when nothing of a payload runs that ignores SIGTERM and forks away."""
    key, adapter = bench.key(), bench.adapter()
    await adapter.submit(bench.attempt(key, _STUBBORN))
    await began(bench, key, "parent")
    await began(bench, key, "grandchild")
    status = await adapter.terminate(key, 0.3)
    # One report may have been on its way to the ledger.
    await asyncio.sleep(0.1)
    ticks = bench.effects(key, "tick")
    require(status.phase in {Phase.ENDED, Phase.LOST}, f"it has an end: {status}")
    ended_well = status.exit_code == 0 and not status.reason and status.signal is None
    require(not ended_well, f"what was terminated is no success: {status}")
    await asyncio.sleep(QUIET_S)
    require(bench.effects(key, "tick") == ticks, "nothing runs once terminate has returned")


async def terminate_gives_its_grace(bench: Bench) -> None:
    """A payload hears SIGTERM and has its grace; terminating again changes nothing."""
    key, adapter = bench.key(), bench.adapter()
    code = (
        "signal.signal(signal.SIGTERM, lambda *a: (report('saved'), sys.exit(0)))\n"
        "report('start')\ntime.sleep(120)"
    )
    await adapter.submit(bench.attempt(key, code))
    await began(bench, key)
    first = await adapter.terminate(key, 30.0)
    require(bench.effects(key, "saved") == 1, f"it has heard SIGTERM, once: {first}")
    again = await bench.adapter().terminate(key, 0.0)
    require(again.phase is first.phase, f"a second terminate is the same: {first}, {again}")


async def terminate_leaves_an_end_as_it_was(bench: Bench) -> None:
    """Terminating what has ended by itself does not change how it ended."""
    key, adapter = bench.key(), bench.adapter()
    await adapter.submit(bench.attempt(key, "sys.exit(5)"))
    await ended(adapter, key)
    status = await adapter.terminate(key, 0.0)
    code = bench.exit_code(status)
    require(code == 5, f"its end stays: {status}")  # noqa: PLR2004 - as above


async def a_lost_job_is_no_success(bench: Bench) -> None:
    """When the backend dies with a job, the job is LOST or goes on; it is never a success."""
    key = bench.key()
    await bench.adapter().submit(bench.attempt(key, "report('start'); time.sleep(120)"))
    await began(bench, key)
    await bench.lose_jobs()
    adapter = bench.adapter()
    status = await adapter.find(key)
    require(status.phase is not Phase.ABSENT, f"what ran is never absent: {status}")
    if status.phase is Phase.RUNNING:
        status = await adapter.terminate(key, 0.0)
    require(status.exit_code != 0, f"nobody has seen it exit: {status}")
    require(status.phase is Phase.LOST or status.reason, f"its end is no success: {status}")


async def a_paused_job_stands_still(bench: Bench) -> None:
    """A paused job does nothing until it is resumed; a paused job can be terminated."""
    key, adapter = bench.key(), bench.adapter()
    if not isinstance(adapter, Pausing):
        raise NotApplicable("the adapter does not pause")
    code = "while True:\n    report('tick')\n    time.sleep(0.05)"
    await adapter.submit(bench.attempt(key, code))
    await began(bench, key, "tick")
    status = await patiently(lambda: adapter.pause(key))
    require(status.paused, f"it says that it is paused: {status}")
    await asyncio.sleep(0.1)
    ticks = bench.effects(key, "tick")
    await asyncio.sleep(QUIET_S)
    require(bench.effects(key, "tick") == ticks, "a paused job does nothing")
    await patiently(lambda: adapter.resume(key))
    await began(bench, key, "tick", ticks + 1)
    await patiently(lambda: adapter.pause(key))
    status = await adapter.terminate(key, 0.0)
    require(status.phase is Phase.ENDED, f"a paused job can be terminated: {status}")


async def a_command_ends_with_its_job(bench: Bench) -> None:
    """A command beside a job runs once, tells its end, and is gone when terminate returns."""
    key, adapter = bench.key(), bench.adapter()
    if not isinstance(adapter, Executing):
        raise NotApplicable("the adapter runs no commands beside a job")
    ticks = "while True:\n    report('tick')\n    time.sleep(0.05)"
    await adapter.submit(bench.attempt(key, "report('start'); time.sleep(120)"))
    await began(bench, key)
    for name, code in (("once", "report('once'); sys.exit(3)"), ("long", ticks)):
        argv = _command(bench, key, code)
        await asyncio.gather(*(adapter.execute(key, name, argv, frozenset()) for _ in range(2)))
    piece = await adapter.fetch(key, "once", (0, 0), 30.0)
    while not piece.ended:
        piece = await adapter.fetch(key, "once", (0, 0), 30.0)
    require(piece.exit_code == 3, f"its exit code is told: {piece}")  # noqa: PLR2004 - as above
    await began(bench, key, "tick")
    await adapter.terminate(key, 0.3)
    await asyncio.sleep(0.1)
    found = bench.effects(key, "tick")
    await asyncio.sleep(QUIET_S)
    require(bench.effects(key, "tick") == found, "no command runs once terminate has returned")
    require(bench.effects(key, "once") == 1, "the same command is not run twice")


def _command(bench: Bench, key: AttemptKey, code: str) -> tuple[str, ...]:
    """Return the command line of a payload of these lines of Python."""
    payload = bench.attempt(key, code).request.payload.process
    if payload is None:
        raise NotApplicable("the bench's payloads are no commands")
    return tuple(payload.command)


ENDING = (
    the_exit_code_is_told,
    a_signal_is_told,
    the_wall_limit_is_told,
    a_kill_for_memory_is_told,
    a_program_that_is_not_there_fails,
    wait_returns_at_its_limit,
    outputs_are_there_at_the_end,
    no_line_is_lost_or_doubled,
    terminated_means_gone,
    terminate_gives_its_grace,
    terminate_leaves_an_end_as_it_was,
    a_lost_job_is_no_success,
    a_paused_job_stands_still,
    a_command_ends_with_its_job,
)
