"""The demonstration: the main job on real input, with a worker killed in the middle."""
