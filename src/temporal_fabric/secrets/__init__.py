"""Secrets: references in requests, values on the host at launch, and nowhere else."""
