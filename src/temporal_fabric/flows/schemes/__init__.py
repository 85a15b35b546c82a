"""Schemes: how an energy is descended, one a module, each with its own descent inequality."""
