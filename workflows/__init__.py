"""Deterministic workflow code: names, states and messages only, nothing that does I/O."""
