"""Certified flows: the library, without Temporal."""
