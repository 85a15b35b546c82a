"""What is installed around a payload: built once per content on a host, and recorded.

`prepared` is what an attempt calls. It gives what a request asks for a digest, `packages` (read
by `recipe`) or `conda`; `building` has the folder that the digest names made under a lock, by
`commands` that end with their worker (`guard`, `unpack`); `cache` lists the folders and removes
those that nothing uses.
"""

from temporal_fabric.environments.conda import ARCHIVES, FETCHED
from temporal_fabric.environments.prepared import prepare
from temporal_fabric.environments.recipe import host_file

__all__ = ["ARCHIVES", "FETCHED", "host_file", "prepare"]
