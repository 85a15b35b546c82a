"""Tests of experiments on laboratory devices."""
