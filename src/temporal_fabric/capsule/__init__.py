"""Capsules: the flight recorder of an experiment, written manifest last, never torn."""
