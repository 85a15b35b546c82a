"""What tests run against beside this package, set up by the scripts in this folder."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(name: str, reason: str) -> NoReturn:
    """Skip the test for want of a backend; fail it where the backend has to be there.

    Args:
        name: The name of the backend's script; `pypi`, which has none, is the package index of pip.
        reason: Why it cannot be used.
    """
    if name in os.environ.get("FABRIC_REQUIRE_BACKENDS", "").split(","):
        pytest.fail(f"FABRIC_REQUIRE_BACKENDS names {name}: {reason}")
    pytest.skip(f"needs {name}: {reason}")
