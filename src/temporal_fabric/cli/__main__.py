"""``python -m temporal_fabric.cli``, where the console script is not on PATH."""

from temporal_fabric.cli.app import main

main()
