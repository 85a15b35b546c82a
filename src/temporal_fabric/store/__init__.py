"""The store: where request records, capsules and uploads live for good, behind one URI.

It may import the clock, the errors and what reads and writes files, and nothing above.
"""

from temporal_fabric.store.objects import Objects
from temporal_fabric.store.probing import probe
from temporal_fabric.store.store import Store, local_path, open_objects, open_store

__all__ = ["Objects", "Store", "local_path", "open_objects", "open_store", "probe"]
