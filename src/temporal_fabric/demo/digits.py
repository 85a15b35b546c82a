"""The demo's payload: fit a classifier on scikit-learn's handwritten digits.

A plain script, as a user would write it: it knows nothing of the fabric but two environment
variables. Every image is shifted by one pixel in each direction, so an epoch is real work.
"""

# scikit-learn ships no types, and this script is what a user would write.
# pyright: basic, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

EPOCHS = int(os.environ.get("EPOCHS", "10"))
SECONDS_PER_EPOCH = float(os.environ.get("SECONDS_PER_EPOCH", "2.0"))


def shifted(images: np.ndarray) -> np.ndarray:
    """Return every 8x8 image with its eight one-pixel shifts, shape (9 n, 64)."""
    moves = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    stacks = [np.roll(images, move, axis=(1, 2)) for move in moves]
    return np.concatenate(stacks).reshape(9 * len(images), 64)


def tell(**numbers: float) -> None:
    """Record numbers: one JSON object a line, to the file that FABRIC_TELEMETRY names."""
    with Path(os.environ["FABRIC_TELEMETRY"]).open("a") as file:
        file.write(json.dumps({"at": time.time(), **numbers}) + "\n")


def main() -> None:
    """Train for some epochs; print one line each; write ``result.json``."""
    digits = load_digits()
    train, test, train_y, test_y = train_test_split(
        digits.images / 16.0, digits.target, test_size=0.25, random_state=0
    )
    x, y = shifted(train), np.tile(train_y, 9)
    model = MLPClassifier(hidden_layer_sizes=(64,), learning_rate_init=1e-2, random_state=0)
    accuracy, history = 0.0, []
    for epoch in range(1, EPOCHS + 1):
        started = time.monotonic()
        model.partial_fit(x, y, classes=np.unique(y))
        # A fixed pace: the same demo on a fast and on a slow machine.
        time.sleep(max(0.0, SECONDS_PER_EPOCH - (time.monotonic() - started)))
        accuracy = float(model.score(test.reshape(len(test), 64), test_y))
        history.append({"epoch": epoch, "loss": float(model.loss_), "accuracy": accuracy})
        tell(step=epoch, loss=float(model.loss_), accuracy=accuracy, progress=epoch / EPOCHS)
        print(f"epoch {epoch:2d}/{EPOCHS}  loss {model.loss_:.4f}  accuracy {accuracy:.4f}")
    result = {"accuracy": accuracy, "epochs": EPOCHS, "pid": os.getpid(), "history": history}
    Path(os.environ["FABRIC_OUTPUT_DIR"], "result.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
