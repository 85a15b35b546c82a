"""Write the input of portable.yaml: 50 MB, the same on every machine.

    python3 make_input.py FILE

They are the first 50,000,000 bytes of SHAKE-256 of the words "temporal-fabric portable example":
no pattern in them, so a change of any byte changes every result.
"""

import hashlib
import sys
from pathlib import Path

WORDS = b"temporal-fabric portable example"
BYTES = 50_000_000


def main(path: str) -> None:
    """Write the file."""
    content = hashlib.shake_256(WORDS).digest(BYTES)
    Path(path).write_bytes(content)
    print(f"{path}: {BYTES} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main(sys.argv[1])
