"""Inputs, outputs and chains of experiments."""
