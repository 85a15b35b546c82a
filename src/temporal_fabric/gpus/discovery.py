"""Looking for GPUs by NVML, the driver's own library, through NVIDIA's own binding.

It is loaded with the first look: a host without a driver has no such library, which is an answer
and no error.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any

from temporal_fabric.gpus.devices import Device, Found

_UNCORRECTED, _SINCE_LOAD = 1, 0
"""Of the binding's enumerations: errors that were not corrected, since the driver was loaded."""

_NO_DRIVER = "no NVIDIA driver is installed on this host (libnvidia-ml.so.1 is not found)"
_NOT_LOADED = "the NVIDIA driver is installed and not loaded: see nvidia-smi and dmesg"


def find() -> Found:
    """Return every NVIDIA GPU of this host, those that are given to nobody included.

    Asks the driver, which takes milliseconds, and up to seconds where nothing keeps it awake.
    """
    nvml: Any = import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError_LibraryNotFound:
        return Found(none=_NO_DRIVER)
    except nvml.NVMLError_DriverNotLoaded:
        return Found(none=_NOT_LOADED)
    except nvml.NVMLError as exc:
        return Found(none=f"the NVIDIA driver cannot be asked: {exc}")
    try:
        devices = tuple(_device(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
    except nvml.NVMLError as exc:
        return Found(none=f"the NVIDIA driver cannot be asked: {exc}")
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()
    return Found(devices, "" if devices else "the NVIDIA driver shows no device")


def _device(nvml: Any, index: int) -> Device:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        return Device(
            id=nvml.nvmlDeviceGetUUID(handle),
            index=index,
            name=nvml.nvmlDeviceGetName(handle),
            memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
            minor=nvml.nvmlDeviceGetMinorNumber(handle),
            unfit=_unfit(nvml, handle),
            processes=tuple(
                sorted({row.pid for row in nvml.nvmlDeviceGetComputeRunningProcesses(handle)})
            ),
        )
    except nvml.NVMLError as exc:
        return Device(f"gpu-{index}", index, unfit=f"the driver cannot tell of it: {exc}")


def _unfit(nvml: Any, handle: Any) -> str:
    """Return why a device cannot be given whole, or not be trusted; what it lacks is no reason."""
    lacks = (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound)
    with suppress(*lacks):
        if any(nvml.nvmlDeviceGetMigMode(handle)):
            return "it is divided (MIG), and given whole or not at all: nvidia-smi -mig 0"
    with suppress(*lacks):
        *_, pending, failed = nvml.nvmlDeviceGetRemappedRows(handle)
        if failed:
            return "a broken row of its memory cannot be replaced: it has to be exchanged"
        if pending:
            return "a broken row of its memory waits for a reset: nvidia-smi --gpu-reset"
    with suppress(*lacks):
        if count := nvml.nvmlDeviceGetTotalEccErrors(handle, _UNCORRECTED, _SINCE_LOAD):
            return f"{count} errors of its memory were not corrected: nvidia-smi --gpu-reset"
    return ""
