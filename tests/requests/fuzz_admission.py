"""Fuzz admission: ``python -m tests.requests.fuzz_admission --count 100000 --seed 1``.

Mutates bodies that are accepted, by seeded chance or, with ``--guided``, towards code that no
body has reached yet (atheris). Whatever comes in, admission must answer within half a second with a
request or with 1 to 20 problems under codes of the contract.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from temporal_fabric.errors import RequestRejected
from temporal_fabric.requests import CODES, admit
from temporal_fabric.requests.limits import ECHO_CHARS, PROBLEMS
from tests.requests import examples

SLOWEST = 0.5
LARGEST_MIB = 64
TOKENS = (
    b"{", b"}", b"[", b"]", b":", b",", b'"', b"'", b"\n", b"- ", b"? ", b"&a ", b"*a", b"!!int ",
    b"<<: ", b"%TAG ! x\n", b"---\n", b"...", b"|", b">", b"#", b"\0", b"\xff", b"\xc2\x85",
    b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\xf0\x9f\x98\x80", b"\\ud83d", b"\\u0000", b"null", b"~",
    b"true", b"1e999", b"NaN", b"-0.0", b"9" * 30, b"0x10", b"1_000", b"..", b"/../", b"%2e%2e",
    b"${X}", b"${X:-1}", b"x2", b"16+", b"128GB", b"A100:2", b"#SBATCH --mem=1G\n", b"#!/bin/sh\n",
    b"https://user:pw@host/x", b"https://127.0.0.1/", b"https://0x7f.1/", b"secret://env/X",
    b"a.map(x, x + x)", b"foo(1)", b"((((((((", b"payload", b"process", b"container", b"id",
    b"resources", b"retry", b"on", b"execution", b"$(touch x)", b"; rm", b"\x1b[31m",
)  # fmt: skip


def seeds() -> list[bytes]:
    """Return the bodies that mutation starts from, in both syntaxes."""
    bodies = [examples.body(kind) for kind in examples.PAYLOADS] + [examples.TASK]
    texts = [examples.SEED_YAML, examples.SHORT_YAML, examples.SCRIPT]
    return [
        *(text.encode() for text in texts),
        *(json.dumps(body).encode() for body in bodies),
        *(json.dumps(body, indent=1, ensure_ascii=False).encode() for body in bodies),
    ]


def mutate(body: bytes, corpus: list[bytes], chance: random.Random) -> bytes:
    """Return a body changed in one to eight places."""
    data = bytearray(body)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.randint(1, 30))
        match chance.randrange(6):
            case 0:
                data[at:end] = b""
            case 1:
                data[at:at] = chance.choice(TOKENS)
            case 2:
                data[at:end] = chance.choice(TOKENS)
            case 3:
                data[at : at + 1] = chance.randbytes(1)
            case 4:
                data[at:at] = bytes(data[at:end]) * chance.choice((1, 2, 40))
            case _:
                other = chance.choice(corpus)
                start = chance.randrange(len(other))
                data[at:at] = other[start : start + chance.randint(1, 60)]
    return bytes(data[:65536])


def check(body: bytes) -> bool:
    """Admit a body and check what any answer must be; return whether it was accepted."""
    begun, peak = time.process_time(), _peak_mib()
    try:
        admission = admit(body)
    except RequestRejected as rejected:
        problems = rejected.problems
        assert 1 <= len(problems) <= PROBLEMS
        for problem in problems:
            assert problem.code in CODES
            assert CODES[problem.code].admission
            assert problem.message
            assert problem.message.isprintable()
            assert not isinstance(problem.actual, str) or len(problem.actual) <= ECHO_CHARS
        accepted = False
    else:
        again = admit(admission.request.to_body())
        assert again.digest == admission.digest
        assert admit(admission.request.to_yaml()).digest == admission.digest
        accepted = True
    assert time.process_time() - begun <= SLOWEST
    assert _peak_mib() - peak <= LARGEST_MIB
    return accepted


def _peak_mib() -> float:
    """Return the most memory this process has used, in MiB; one body may add LARGEST_MIB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def by_chance(count: int, seed: int, seconds: float) -> tuple[int, int]:
    """Run mutations drawn by chance; return how many ran and how many were accepted."""
    chance = random.Random(seed)
    corpus = seeds()
    kept = len(corpus)
    deadline = time.monotonic() + seconds
    ran = accepted = 0
    while ran < count and time.monotonic() < deadline:
        body = mutate(chance.choice(corpus), corpus, chance)
        ran += 1
        try:
            took = check(body)
        except BaseException:
            sys.stderr.write(f"failing body, run {ran} of seed {seed}: {body!r}\n")
            raise
        if took:
            accepted += 1
            # An accepted mutant is a good start for more; the oldest ones make room.
            corpus.append(body)
            if len(corpus) > 40 * kept:
                del corpus[kept]
    return ran, accepted


def _run_one(data: bytes) -> None:
    check(data)


def guided(count: int, seed: int, seconds: float) -> None:
    """Run under atheris, which ends the process."""
    atheris = import_module("atheris")
    atheris.instrument_all()
    corpus = Path(tempfile.mkdtemp(prefix="fuzz"))
    for number, body in enumerate(seeds()):
        (corpus / str(number)).write_bytes(body)
    limits = [f"-runs={count}", f"-seed={seed}", f"-max_total_time={int(seconds)}"]
    # What breaks the contract is kept beside the corpus; the message says where.
    limits += ["-max_len=4096", "-rss_limit_mb=2048", f"-artifact_prefix={corpus}-"]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], _run_one)
    atheris.Fuzz()


def main() -> None:
    """Fuzz from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guided", action="store_true", help="let atheris guide; it must be there")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600.0)
    asked = parser.parse_args()
    if asked.guided:
        guided(asked.count, asked.seed, asked.seconds)
    begun = time.monotonic()
    ran, accepted = by_chance(asked.count, asked.seed, asked.seconds)
    spent = time.monotonic() - begun
    sys.stdout.write(f"{ran} bodies in {spent:.1f} s, {accepted} accepted, 0 failures\n")


if __name__ == "__main__":
    main()
