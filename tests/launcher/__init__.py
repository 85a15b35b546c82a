"""The launcher with real processes, real signals and real namespaces."""
