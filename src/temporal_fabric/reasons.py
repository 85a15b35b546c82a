"""What each reason token means, what is certain under it, and where to look first.

``temporal-fabric explain-code`` and the reference are written from this table; nothing else
explains the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from temporal_fabric.states import Reason

__all__ = ["REASONS", "Meaning"]


@dataclass(frozen=True, slots=True)
class Meaning:
    """One reason token in words."""

    means: str
    certain: str
    """What the fabric knows, and what it does not."""

    first: str
    """What a person looks at first."""


REASONS: dict[Reason, Meaning] = {
    Reason.EXIT_CODE: Meaning(
        "the payload exited with another code than 0",
        "The program started, ran, and chose this end itself; nothing of it is alive. A code above "
        "128 is its own too, and is not read as a signal.",
        "The end of its standard error in `temporal-fabric result ID`, then all of it: "
        "`temporal-fabric logs ID --stderr`.",
    ),
    Reason.SIGNAL: Meaning(
        "the payload was killed by a signal",
        "The kernel told which signal. It was not the fabric's own limit on time, which is "
        "`TIMEOUT`. Who sent it is not known.",
        "The signal in the message: SIGSEGV and SIGABRT are crashes of native code, and SIGKILL "
        "without a control group may be the host's own killer for memory (`dmesg`).",
    ),
    Reason.OOM: Meaning(
        "the kernel killed the payload, or a part of it, for memory",
        "The control group counted at least one kill. The program may have carried on and exited "
        "with 0: its result would lack a part, so it is not called success.",
        "`max_rss_bytes` in `temporal-fabric result ID -o json`, beside the memory that the "
        "request asks for. `retry.on: {OOM: {memory: x2, max: 64GB}}` asks for more by itself.",
    ),
    Reason.TIMEOUT: Meaning(
        "`limits.wall_s` passed, or the `deadline` of the request, or a flow's `budgets.wall_s`",
        "What ran was ended, and nothing of it is alive. Whether it would have finished is not "
        "known.",
        "The last lines of `temporal-fabric logs ID`: did it still advance? Then raise the limit, "
        "or resume from `FABRIC_CHECKPOINT_DIR`.",
    ),
    Reason.LOST: Meaning(
        "launcher or host went away, or the run was closed by other means than the fabric's: "
        "nobody knows what the attempt did, or its outputs are gone with the host",
        "The attempt has no end that anybody saw, or its outputs were never sealed. Nothing of it "
        "runs any more, or a person has given it up, who stands in `resolutions` of the result; no "
        "effect of it is accepted later. What it wrote elsewhere before is not known.",
        "Whether the host was restarted, or the run terminated in the web UI; then `launcher.log` "
        "in the worker's `FABRIC_HOME`. It is run again only if `retry.on` lists `LOST`.",
    ),
    Reason.SETUP: Meaning(
        "an input is missing or refused, the environment could not be built, or the command could "
        "not be started",
        "The payload did not run: no line of your program was executed.",
        "The message names the input, package or program. The end of an installer's output is "
        "there too, all of it in `environment.log` of the capsule.",
    ),
    Reason.OUTPUT_MISSING: Meaning(
        "a declared output is missing, an output is not a regular file, or it cannot be stored "
        "under its `target_uri`",
        "The payload exited with 0, and what it promised is not there. Nothing of the run was "
        "given its final name under a `target_uri`.",
        "The path in the message: is it written below `FABRIC_OUTPUT_DIR`, and as a file, not as "
        "a link?",
    ),
    Reason.INTEGRITY: Meaning(
        "an input is not what its `sha256` or its capsule says, or an output changed between "
        "its hash and the capsule",
        "Two digests of the same name differ, so something was changed after it was recorded. "
        "Which of the two is right is not known.",
        "Both digests in the message, and who may write to that place; "
        "`temporal-fabric capsule verify ID` for a capsule.",
    ),
    Reason.CERT_FAIL: Meaning(
        "a certificate of a flow does not meet its bound: before the first step, on the way, or at "
        "the exit",
        "Every certificate of the stage was looked at, and the table says which one closed the "
        "gate. Nothing is claimed of the result; an array in the capsule is where the flow stood.",
        "The table of `temporal-fabric status ID` and the sentence below it, which says what to "
        "change. It is run again only if `retry.on` lists `CERT_FAIL`: it would fail again.",
    ),
    Reason.BUDGET: Meaning(
        "the outputs take more than `limits.output_bytes`",
        "The payload exited with 0. Nothing of it was stored under a `target_uri`.",
        "The size in the message. Raise the limit, or write less below `FABRIC_OUTPUT_DIR`.",
    ),
    Reason.PREEMPTED: Meaning(
        "the attempt gave up its place before its end: a certified flow left it to a more urgent "
        "experiment, its workflow was cancelled by itself, or the cluster took the place",
        "A flow's last good checkpoint was kept, and nothing of it is alive. The next attempt goes "
        "on from there, and does not count towards `retry.max_attempts`.",
        "The message. `temporal-fabric reprioritise ID` makes a flow urgent enough to stay. To "
        "end the experiment, cancel it, and not `flow/<tenant>/<id>/<epoch>`.",
    ),
    Reason.NO_BACKEND: Meaning(
        "no backend had a place within `queue_timeout`",
        "Some backend could run it, and none had room in time. No attempt was started.",
        "`temporal-fabric list`: what takes the places? Then raise `queue_timeout`, `priority`, or "
        "the `slots` of the backend.",
    ),
    Reason.REFUSED: Meaning(
        "the request was refused",
        "No attempt was started, and nothing was written to the store.",
        "The error codes in the message; `temporal-fabric explain-code CODE` tells of each.",
    ),
    Reason.INTERNAL: Meaning(
        "a fault of the fabric, not of the payload",
        "An activity failed in a way that nobody foresaw. Nothing of the attempt is alive, and "
        "its result, if it had one, is not taken.",
        "The message, then the failure in the workflow's history (web UI) and the worker's log. "
        "`temporal-fabric doctor` finds a full disk or a store that is away. Please report it.",
    ),
    Reason.ROLLBACK: Meaning(
        "it was cancelled, and a compensation of its `rollback` failed",
        "Nothing of it is alive. What the failed compensation should have undone may still be "
        "there; the others were run.",
        "`compensations` in `temporal-fabric result ID -o json`: which one, and the end of its "
        "standard error.",
    ),
    Reason.BACKEND_DOWN: Meaning(
        "waiting: no worker of the backend's host answers",
        "An attempt that was never started is revoked, and placed elsewhere under another epoch. "
        "What was started may still run: it goes on when the host is back, and a person is asked "
        "(`HELD`) after `retry.lost_after`.",
        "Is the host up, and `temporal-fabric worker` on it? `temporal-fabric doctor` there. "
        "Otherwise `temporal-fabric status ID` shows the question, `resolve` answers it.",
    ),
    Reason.WAITING_FOR_CAPACITY: Meaning(
        "waiting: every place of the backend is taken, or too few of its GPUs are free",
        "It is accepted and will not be forgotten; it holds nothing yet.",
        "`temporal-fabric status ID` says how many are ahead. More `slots`, or another `priority`, "
        "change that. `temporal-fabric backends -o json` says who has which GPU.",
    ),
    Reason.DRAINED: Meaning(
        "waiting: every backend that could run it is drained",
        "Somebody has taken them out of service. It is accepted, holds no place, and goes on when "
        "one of them is undrained.",
        "`temporal-fabric status ID` says which, since when and why. `temporal-fabric undrain "
        "BACKEND`, or let it fit another one.",
    ),
    Reason.DEPENDENCY: Meaning(
        "waiting: an experiment whose output is an input has not ended",
        "It is accepted, holds no place, and goes on when that experiment has ended.",
        "`temporal-fabric status ID` names the experiment; look at that one.",
    ),
}
