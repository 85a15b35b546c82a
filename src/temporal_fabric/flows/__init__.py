"""Certified flows: minimise an energy E = f + g, and know what the result is worth."""
