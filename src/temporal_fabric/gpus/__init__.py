"""Whole GPUs of this host: which there are, which fit a request, and who has one reserved."""
