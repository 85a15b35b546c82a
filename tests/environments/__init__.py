"""Environments built on this host, by the real installer."""
