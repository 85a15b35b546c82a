"""Tests of the certified-flow engine."""
