"""Run this host's worker: ``python worker.py``, the same as ``temporal-fabric worker``."""

from temporal_fabric.cli.app import main

if __name__ == "__main__":
    main(["worker"])
