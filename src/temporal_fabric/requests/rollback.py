"""What undoes the effects of a payload: the request's ``rollback``."""

from typing import Annotated, Literal

from pydantic import Field

from temporal_fabric.requests import limits
from temporal_fabric.requests.fields import Items, Model, Name, Seconds
from temporal_fabric.requests.payloads import Command, Env

__all__ = ["Compensation", "Rollback"]


class Compensation(Model):
    """A program that undoes one effect of the payload.

    It runs once the experiment has failed or was cancelled and nothing of the payload runs.
    """

    name: Name
    command: Command
    """The program, then its arguments; no shell reads them."""
    env: Env = Field(default={})
    """Variables besides those of the payload."""
    wall_s: Seconds | None = None
    """How long one try may take."""
    max_attempts: int = Field(default=3, ge=1, le=1000)
    """Tries in all, after which it counts as failed."""
    on_failure: Literal["report", "hold"] = "report"
    """What follows once it has failed: the next one, or a question to a person."""


Rollback = Annotated[tuple[Compensation, ...], Items, Field(max_length=limits.COMPENSATIONS)]
