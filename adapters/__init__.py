"""Backends: the contract every one of them keeps, the registry, and one kind a module."""
