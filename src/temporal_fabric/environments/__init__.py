"""What is installed around a payload: built once per content on a host, and recorded.

`recipe` reads what a request asks for and gives it a digest; `building` runs the installer under
a lock and leaves the folder that the digest names; `prepared` is what an attempt calls.
"""

from temporal_fabric.environments.prepared import prepare
from temporal_fabric.environments.recipe import host_file

__all__ = ["host_file", "prepare"]
