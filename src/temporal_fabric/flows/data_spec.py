"""Where the arrays of a specification come from, as frozen models."""

from typing import Annotated, Any, Literal

from pydantic import Field

from temporal_fabric.requests.fields import Items, Model

__all__ = ["Count", "Data", "Positive", "Sizes", "Slug", "Weight"]

Slug = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Sizes = Annotated[tuple[Count, ...], Items, Field(min_length=1, max_length=4)]


class Values(Model):
    """Numbers written out, in nested lists or in one list with a shape."""

    type: Literal["values"]
    values: Any


class Constant(Model):
    """One number everywhere."""

    type: Literal["constant"]
    shape: Sizes
    value: float = 0.0


class Normal(Model):
    """Gaussian numbers."""

    type: Literal["normal"]
    shape: Sizes
    scale: Positive = 1.0
    seed: Annotated[int, Field(ge=0)] = 0


class File(Model):
    """An array in an .npy or .npz file."""

    type: Literal["file"]
    path: Annotated[str, Field(min_length=1)]
    key: str | None = None
    """Name in an .npz file; its first array where unset."""
    package: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$")] | None = None
    """Installed package that the path is in."""
    divide: Positive = 1.0
    """What every number is divided by."""
    shrink: Count = 1
    """Side of the squares whose mean makes one pixel."""


class Observed(Model):
    """What an operator makes of other data, with Gaussian noise."""

    type: Literal["observed"]
    source: Slug
    operator: Slug = "identity"
    noise: Weight = 0.0
    """Standard deviation."""
    seed: Annotated[int, Field(ge=0)] = 0


Data = Annotated[Values | Constant | Normal | File | Observed, Field(discriminator="type")]
