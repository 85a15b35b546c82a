"""The fabric observed from outside: log lines, an event log, metrics and traces.

Nothing here decides anything, and none of it may fail a run: an event log that cannot be
written and a collector that does not answer cost their data, never an experiment.
"""
