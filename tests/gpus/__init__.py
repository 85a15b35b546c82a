"""Whole GPUs of a host: what is there, who gets it, and that nobody shares it."""
