"""Telemetry: the recorder alone, and whole runs."""
