"""What `make_report_picture` reports on: softmax regression of handwritten digits by steps of SGD.

It goes on from its last checkpoint, records four numbers, and tells of each checkpoint.
"""

# scikit-learn ships no types.
# pyright: basic, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

STEPS, EVERY, RATE, BATCH, PAUSE_S = 2400, 300, 0.02, 64, 0.01


def gradient(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Return gradient and value of the mean cross entropy at ``weights``, shape (65, 10)."""
    scores = x @ weights
    scores -= scores.max(axis=1, keepdims=True)
    chance = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    loss = -np.log(chance[np.arange(len(y)), y] + 1e-12).mean()
    chance[np.arange(len(y)), y] -= 1
    return x.T @ chance / len(y), float(loss)


def main() -> None:
    """Train from the last checkpoint on."""
    digits = load_digits()
    x = np.hstack([digits.images.reshape(-1, 64) / 16.0, np.ones((len(digits.target), 1))])
    train, test, train_y, test_y = train_test_split(x, digits.target, random_state=0)
    kept = Path(os.environ["FABRIC_CHECKPOINT_DIR"], "weights.npz")
    weights, first = np.zeros((65, 10)), 0
    if kept.exists():
        weights, first = np.load(kept)["weights"], int(np.load(kept)["step"])
    with Path(os.environ["FABRIC_TELEMETRY"]).open("a") as told:
        for step in range(first, STEPS):
            batch = np.random.default_rng(step).integers(len(train), size=BATCH)
            slope, loss = gradient(weights, train[batch], train_y[batch])
            weights -= RATE * slope
            row = {"step": step, "loss": loss, "gradient_norm": float(np.linalg.norm(slope))}
            if step % 20 == 0:
                row["accuracy"] = float((np.argmax(test @ weights, axis=1) == test_y).mean())
                row["validation_loss"] = gradient(weights, test, test_y)[1]
            print(json.dumps({"at": time.time(), **row}), file=told, flush=True)
            if step % EVERY == EVERY - 1:
                partial = kept.with_name("new.npz")
                np.savez(partial, weights=weights, step=step + 1)
                partial.replace(kept)
                event = {"event": "checkpoint", "file": kept.name, "step": step + 1}
                print(json.dumps({"at": time.time(), **event}), file=told, flush=True)
            time.sleep(PAUSE_S)
    np.savez(Path(os.environ["FABRIC_OUTPUT_DIR"], "model.npz"), weights=weights)


if __name__ == "__main__":
    main()
