"""The Kubernetes adapter, on a real cluster."""
