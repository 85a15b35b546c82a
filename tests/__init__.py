"""Tests at the outside: command line, API, what is on disk, what Temporal shows."""
