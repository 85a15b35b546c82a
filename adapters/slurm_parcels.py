"""What is submitted for an attempt, made ready here and handed over there, alone or with others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters import slurm_batch, slurm_container
from temporal_fabric.adapters.slurm_batch import Place
from temporal_fabric.adapters.slurm_carrying import small_files
from temporal_fabric.adapters.slurm_states import PERMANENT
from temporal_fabric.adapters.slurm_transport import array_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from temporal_fabric.adapters.contract import AttemptSpec
    from temporal_fabric.adapters.slurm_carrying import Carrying
    from temporal_fabric.adapters.slurm_options import SlurmOptions
    from temporal_fabric.adapters.slurm_transport import Transport
    from temporal_fabric.adapters.slurm_verdict import Site

_EACH_S = 0.1
"""How much longer an attempt more may take, on a slow file system."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One attempt that is ready to be submitted."""

    name: str
    """Of its job."""

    id: str = ""
    """Of its job, where it has one already."""

    base: str = ""
    """The folder of all attempts on the site."""

    asked: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the site is told of it; see `slurm_on_login_submit.Submission`."""

    job: dict[str, Any] = field(default_factory=dict[str, Any])
    """What Slurm is told of it where it is submitted alone."""

    shape: tuple[object, ...] = ()
    """Equal for those that can be elements of one array."""

    size: int = 0
    """How many characters it brings."""


class Counter:
    """Where attempts are handed over. Blocking; everything may be repeated.

    Args:
        transport: To the site.
        carrying: Moves files on it.
        options: Of the backend.
    """

    def __init__(self, transport: Transport, carrying: Carrying, options: SlurmOptions) -> None:
        self._transport, self._carrying, self._options = transport, carrying, options

    def pack(self, attempt: AttemptSpec, name: str, site: Site) -> Parcel:
        """Make an attempt ready; what is too much for a parcel goes to the site at once.

        Args:
            attempt: What is run.
            name: The job's name.
            site: What is known of the site.

        Raises:
            PermanentBackendError: it was terminated, or its files cannot be carried.
            TransientBackendError: it did not work now.
        """
        key = attempt.key
        slurm_batch.write_source(attempt)
        slurm_container.record(attempt, self._options)
        place = Place.of(site.base, name, key)
        asked: dict[str, Any] = {
            "name": name,
            "tenant": key.tenant,
            "request": key.request_id,
            "epoch": key.epoch,
        }
        trees = small_files(attempt)
        if trees is None:
            told = self._transport.ask("prepare", permanent=PERMANENT, **asked)
            if told["id"]:
                return Parcel(name, str(told["id"]))
            attempt.say(f"copies its files to {self._transport.where}")
            self._carrying.send(attempt, place)
        attempt.say(f"submits it to Slurm by {self._transport.where}")
        asked["launch"] = slurm_batch.launch(attempt, place, self._options)
        asked["files"] = slurm_batch.files(attempt, place, self._options)
        asked["trees"] = trees or []
        job = slurm_batch.job(attempt, name, place, self._options, site.longest_s)
        shape = slurm_batch.shape(job)
        return Parcel(name, "", site.base, asked, job, shape, len(str(asked)))

    def alone(self, parcel: Parcel) -> str:
        """Submit one attempt, or find the job that it has; return the job's id.

        Raises:
            PermanentBackendError: Slurm refuses it for good.
            TransientBackendError: nobody knows whether it was submitted.
        """
        files = {**slurm_batch.job_files(), **parcel.asked["files"]}
        told = self._transport.ask(
            "submit",
            longer_s=2 * self._options.answer_s,
            permanent=PERMANENT,
            job=parcel.job,
            **{**parcel.asked, "files": files},
        )
        return str(told["id"])

    def together(self, parcels: Sequence[Parcel]) -> dict[str, str]:
        """Submit attempts of one shape as one array; return the ids of those that it has.

        The others were begun before in another way, or Slurm refuses the array.

        Raises:
            TransientBackendError: nobody knows whether it was submitted.
        """
        first, name = parcels[0], array_name(parcel.name for parcel in parcels)
        told = self._transport.ask(
            "submit_array",
            longer_s=2 * self._options.answer_s + _EACH_S * len(parcels),
            permanent=PERMANENT,
            name=name,
            files=slurm_batch.job_files(),
            job=slurm_batch.array_job(first.job, name, first.base, len(parcels)),
            members=[parcel.asked for parcel in parcels],
        )
        indexes: list[int] = told["indexes"]
        return {parcels[index].name: f"{told['id']}_{index}" for index in indexes}
