"""Whether a device can do what a request asks, by the device's own feature definitions.

The same check stands at admission and before each command is sent: a device may have been
exchanged in between.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters import fitting
from temporal_fabric.adapters.contract import Shortfall
from temporal_fabric.adapters.sila_device import find_command
from temporal_fabric.requests.engines import Quantity
from temporal_fabric.workplace import output_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sila.client import Client
    from sila.framework import Command, Feature

    from temporal_fabric.adapters.sila_options import SilaOptions
    from temporal_fabric.requests.engines import LabCommand, LabPayload, Parameter
    from temporal_fabric.requests.models import ExecutionRequest

TYPES = ("physical_manipulation", "synthesis")
"""What `requirements.type` a device is for."""

_CODE = "E_LAB"
_SERVICE = "SiLAService"
_LIMITS = {
    "MinimalInclusive": "at least {}",
    "MinimalExclusive": "more than {}",
    "MaximalInclusive": "at most {}",
    "MaximalExclusive": "less than {}",
    "MinimalLength": "{} characters or more",
    "MaximalLength": "{} characters or fewer",
    "Length": "{} characters",
    "Pattern": "of the form {}",
}


def plain_shortfalls(
    request: ExecutionRequest, options: SilaOptions, labels: Mapping[str, Any]
) -> Iterator[Shortfall]:
    """Yield what speaks against a request without asking the device."""
    wrong = list(fitting.kinds(request, "lab"))
    yield from wrong
    if request.requirements.type not in TYPES:
        yield Shortfall(
            f"does physical work, not {request.requirements.type!r}",
            f"set /requirements/type to {' or '.join(TYPES)}",
        )
    lab = request.payload.lab
    if lab is not None:
        yield from fitting.files(request)
        yield from _of_payload(lab, options)
    yield from fitting.settings(request)
    yield from _unlimited(request)
    yield from fitting.resources(request, cores=0, memory_bytes=0)
    yield from fitting.constraints(request, labels)


def _of_payload(lab: LabPayload, options: SilaOptions) -> Iterator[Shortfall]:
    if lab.device != options.device:
        yield Shortfall(
            f"is the device {options.device!r}, not {lab.device!r}",
            f"set /payload/lab/device to {options.device}",
            _CODE,
        )
    files = {f"{step.command_id}.json" for step in lab.steps}
    for place, output in enumerate(lab.outputs):
        if output_path(output.source_path) not in files:
            yield Shortfall(
                f"writes /output/COMMAND_ID.json, the responses of a step, not "
                f"{output.source_path!r}",
                f"set /payload/lab/outputs/{place}/source_path to one of "
                f"{', '.join(f'/output/{file}' for file in sorted(files))}",
                _CODE,
            )


def _unlimited(request: ExecutionRequest) -> Iterator[Shortfall]:
    if request.limits.memory_bytes is not None:
        yield Shortfall("limits no memory: a device has none", "drop /limits/memory_bytes")
    if request.environment is not None:
        yield Shortfall("installs nothing on a device", "drop /environment")
    if request.secrets:
        yield Shortfall("gives a device no secrets", "drop /secrets")


async def misfits(lab: LabPayload, client: Client) -> list[Shortfall]:
    """Return every step that the device cannot do, with its own limits.

    Args:
        lab: The steps.
        client: An open connection, which has the device's feature definitions.
    """
    found: list[Shortfall] = []
    for place, step in enumerate(lab.steps):
        at = f"/payload/lab/steps/{place}"
        found += await unfit(step, client, at)
        if step.compensate is not None:
            found += await unfit(step.compensate, client, f"{at}/compensate")
    return found


async def unfit(asked: LabCommand, client: Client, at: str) -> list[Shortfall]:
    """Return what speaks against one command."""
    features: list[Feature] = list(client.features.values())
    command = find_command(features, asked.feature, asked.command)
    if command is None:
        return [_unknown(asked, features, at)]
    wanted: dict[str, Any] = {one.identifier: one for one in command.parameters.values()}
    name = f"{asked.feature}.{asked.command}"
    found = [
        _short(
            f"{name} takes no {key!r}; it takes {_listed(wanted)}", f"drop {at}/parameters/{key}"
        )
        for key in asked.parameters
        if key not in wanted
    ]
    for key, element in wanted.items():
        limits = _limits(element.data_type)
        if key not in asked.parameters:
            said = f"{name} needs {key!r}{limits}"
        else:
            wrong = await _wrong(asked.parameters[key], element.data_type, client)
            given = shown(asked.parameters[key])
            said = f"{name} does not take {key} = {given}: {wrong}" if wrong else ""
        if said:
            change = f"set {at}/parameters/{key}{limits or ' as the device takes it'}"
            found.append(_short(said, change))
    return found


async def _wrong(value: Parameter, data_type: Any, client: Client) -> str:
    """Return what is wrong with a value, empty where the device takes it."""
    unit = _wrong_unit(value, _unit(data_type))
    if unit:
        return unit
    checked = await data_type.check(client, _native(value, data_type))
    return "; ".join(issue.message for issue in checked.issues)


def values(asked: LabCommand, command: Command) -> dict[str, Any]:
    """Return the parameters of a command that fits, as the device takes them."""
    wanted: dict[str, Any] = {one.identifier: one for one in command.parameters.values()}
    return {key: _native(value, wanted[key].data_type) for key, value in asked.parameters.items()}


def _native(value: Parameter, data_type: Any) -> Any:
    plain: Any = value.value if isinstance(value, Quantity) else value
    basic = _layers(data_type)[-1]
    if basic.__name__ == "Real" and type(plain) is int:
        return float(plain)
    if basic.__name__ == "Integer" and type(plain) is float and plain.is_integer():
        return int(plain)
    return plain


def _wrong_unit(value: Parameter, label: str) -> str:
    """Return what is wrong with a value's unit; a number without one would be guessed at."""
    if isinstance(value, Quantity):
        if not label:
            return "the device takes it without a unit"
        return "" if value.unit == label else f"the device takes it in {label}"
    if label and isinstance(value, int | float) and not isinstance(value, bool):
        right = f"{{value: {value}, unit: {label}}}"
        return f"it has no unit; the device takes it in {label}, so give {right}"
    return ""


def _layers(data_type: Any) -> list[Any]:
    """Return a type, what it is defined as, and so on down to its basic type."""
    layers = [data_type]
    while isinstance(inner := getattr(layers[-1], "data_type", None), type):
        layers.append(inner)
    return layers


def _constraints(data_type: Any) -> Iterator[Any]:
    for layer in _layers(data_type):
        yield from getattr(layer, "constraints", ())


def _unit(data_type: Any) -> str:
    units = [one.label for one in _constraints(data_type) if type(one).__name__ == "Unit"]
    return str(units[0]) if units else ""


def _limits(data_type: Any) -> str:
    """Return the device's own limits of a parameter, for people; empty where it has none."""
    told: list[str] = []
    for one in _constraints(data_type):
        name = type(one).__name__
        if name == "Set":
            told.append(f"one of {', '.join(str(getattr(v, 'value', v)) for v in one.values)}")
        elif name in _LIMITS:
            limit = getattr(one, "value", getattr(one, "pattern", getattr(one, "length", "")))
            told.append(_LIMITS[name].format(getattr(limit, "value", limit)))
    label = _unit(data_type)
    return f", {' and '.join(told)}{f' {label}' if label else ''}" if told or label else ""


def _unknown(asked: LabCommand, features: list[Feature], at: str) -> Shortfall:
    same = [one for one in features if asked.feature in _names(one)]
    if len(same) > 1:
        full = _listed(str(one.fully_qualified_identifier) for one in same)
        text = f"has several features {asked.feature!r}: {full}"
        return _short(text, f"set {at}/feature to one of them in full")
    if not same:
        names = [one.identifier for one in features if one.identifier != _SERVICE]
        text = f"has no feature {asked.feature!r}; it has {_listed(names)}"
        return _short(text, f"set {at}/feature{_nearest(asked.feature, names)}")
    names = [command.identifier for command in same[0].commands.values()]
    text = f"its feature {asked.feature} has no command {asked.command!r}; it has {_listed(names)}"
    return _short(text, f"set {at}/command{_nearest(asked.command, names)}")


def _names(feature: Feature) -> tuple[str, str]:
    return (feature.identifier, str(feature.fully_qualified_identifier))


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" to {close[0]}" if close else ""


def shown(value: Parameter) -> str:
    """Return a parameter as people write it."""
    return f"{value.value:g} {value.unit}" if isinstance(value, Quantity) else repr(value)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _short(reason: str, change: str) -> Shortfall:
    return Shortfall(reason, change, _CODE)
