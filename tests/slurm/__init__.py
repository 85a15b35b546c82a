"""Tests of the Slurm backend, on a site of its own."""
