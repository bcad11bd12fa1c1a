"""Where and in which number format a network runs."""

from __future__ import annotations

import platform
from ctypes.util import find_library
from pathlib import Path
from typing import TYPE_CHECKING

from deconv_cli.errors import UsageError, unknown_name

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
ITEM_SIZES = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes of a number in each format."""
GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""On Linux: NVIDIA's driver, the one of Windows' subsystem for Linux, and AMD's."""
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
"""What Linux calls the instructions that multiply bfloat16."""
INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8"}
"""What Linux calls the instructions that multiply eight-bit numbers."""
ARM = ("arm64", "aarch64")


def choose_device(name: str = "auto") -> str:
    """Return ``cpu``, ``cuda`` or ``mps``; ``auto`` prefers cuda, then mps, then the processor.

    torch is asked, and imported, only where there is any sign of a GPU.

    Raises
    ------
    UsageError
        If the name is unknown, or this machine does not have that device.
    """
    if name not in DEVICES:
        raise unknown_name("device", name, DEVICES)
    if name == "cpu" or (name == "auto" and not _may_have_gpu()):
        return "cpu"
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, present in available.items() if present)
    if not available[name]:
        raise UsageError(f"this machine (or this build of torch) has no {name} device; use --device auto or cpu")
    return name


def _may_have_gpu() -> bool:
    """Tell whether there is a sign of a device that torch may know how to use."""
    match platform.system():
        case "Linux":
            return any(Path(file).exists() for file in GPU_FILES)
        case "Windows":
            return find_library("nvcuda") is not None
        case _:
            return platform.machine() == "arm64"


def find_device(name: str = "auto") -> torch.device:
    """Return the device that `choose_device` does, for torch."""
    import torch

    return torch.device(choose_device(name))


def has_native_bf16(device: str) -> bool:
    """Tell whether bfloat16 convolutions run in hardware, so that they are faster than float32 ones."""
    if device == "cpu" and platform.system() == "Linux":
        return bool(BF16_FLAGS & set(_processor_flags()))
    import torch

    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if device == "cpu":
        # torch has no public question for this; an older release that lacks one of these answers no.
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return False


def has_native_int8() -> bool:
    """Tell whether the processor adds up products of eight-bit numbers exactly, in one instruction.

    Where it does not, kernels in int8 are no faster, and on x86 they saturate: they add up in sixteen bits.
    """
    if platform.machine().lower() in ARM:
        return True
    if platform.system() == "Linux":
        return bool(INT8_FLAGS & set(_processor_flags()))
    import torch

    probes = ("_is_vnni_supported", "_is_avx512_vnni_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


def _processor_flags() -> list[str]:
    """Return what Linux says that the first processor can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])


def choose_precision(name: str, device: str) -> str:
    """Return ``fp32``, ``bf16`` or ``fp16``; ``auto`` is bfloat16 where it is native, else float32.

    Raises
    ------
    UsageError
        If the name is unknown, or the format cannot run on the device.
    """
    if name not in PRECISIONS:
        raise unknown_name("precision", name, PRECISIONS)
    if name == "auto":
        return "bf16" if has_native_bf16(device) else "fp32"
    if name == "fp16" and device == "cpu":
        raise UsageError("fp16 is not fast on a processor; use --precision bf16 or fp32, or a GPU")
    return name


def find_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the number format that `choose_precision` does, for torch."""
    import torch

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return dtypes[choose_precision(name, device.type)]
