"""Where and in which number format a network runs."""

from __future__ import annotations

import itertools
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
INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8"}
"""What Linux calls the instructions that multiply eight-bit numbers."""
ARM = ("arm64", "aarch64")
PROCESSOR = Path("/proc/cpuinfo")


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


def has_fast_bf16(device: str) -> bool:
    """Tell whether convolutions are faster in bfloat16 than in float32."""
    if device == "cpu":
        return _processor_has_fast_bf16()
    import torch

    return device == "cuda" and torch.cuda.get_device_capability() >= (8, 0)


def _processor_has_fast_bf16() -> bool:
    """Tell whether this processor multiplies bfloat16 faster than float32.

    AMD's does by AVX-512, Intel's by AMX: its AVX-512 is slower than float32, and all there is where a virtual machine
    hides AMX.
    """
    if platform.system() == "Linux":
        is_intel = processor().get("vendor_id") == "GenuineIntel"
    else:
        is_intel = "GenuineIntel" in platform.processor()
    return "amx" in _bf16_instructions() or (has_native_bf16() and not is_intel)


def has_native_bf16() -> bool:
    """Tell whether this processor has instructions for bfloat16, fast or not; those of x86, as OpenVINO uses them."""
    return bool(_bf16_instructions())


def _bf16_instructions() -> set[str]:
    """Return which sets of instructions for bfloat16 the processor has, of ``amx`` and ``avx512``."""
    if platform.system() == "Linux":
        flags = set(processor().get("flags", "").split())
        return {name for name in ("amx", "avx512") if f"{name}_bf16" in flags}
    probes = {"amx": "_is_amx_tile_supported", "avx512": "_is_avx512_bf16_supported"}
    return {name for name, probe in probes.items() if _torch_says(probe)}


def has_native_int8() -> bool:
    """Tell whether the processor adds up products of eight-bit numbers exactly, in one instruction.

    Where it does not, kernels in int8 are no faster, and on x86 they saturate: they add up in sixteen bits.
    """
    if platform.machine().lower() in ARM:
        return True
    if platform.system() == "Linux":
        return bool(INT8_FLAGS & set(processor().get("flags", "").split()))
    probes = ("_is_vnni_supported", "_is_avx512_vnni_supported", "_is_amx_tile_supported")
    return any(map(_torch_says, probes))


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return the context in which layers run in a number format; in float32, one that changes nothing."""
    import torch

    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def training_layout(device: torch.device) -> torch.memory_format:
    """Return how features lie in memory where the steps of a training are fastest.

    Channels-last, but on x86 without AVX-512, whose kernels (of oneDNN) for the gradient of a convolution's kernel take
    half as long again that way; forward it makes no difference there.
    """
    import torch

    avx2_alone = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"
    return torch.contiguous_format if avx2_alone else torch.channels_last


def _torch_says(probe: str) -> bool:
    """Ask torch, which has no public question for this; an older release that lacks it answers no."""
    import torch

    return bool(getattr(torch.cpu, probe, bool)())


def processor() -> dict[str, str]:
    """Return what Linux says of the first processor, under names such as ``model name``; elsewhere nothing."""
    try:
        with PROCESSOR.open() as file:  # Every core has a paragraph: on a server, a long file.
            lines = [line.partition(":") for line in itertools.takewhile(str.strip, file)]
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in lines}


def choose_precision(name: str, device: str) -> str:
    """Return ``fp32``, ``bf16`` or ``fp16``; ``auto`` is bfloat16 where it is the faster, else float32.

    Raises
    ------
    UsageError
        If the name is unknown, or the format cannot run on the device.
    """
    if name not in PRECISIONS:
        raise unknown_name("precision", name, PRECISIONS)
    if name == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    if name == "fp16" and device == "cpu":
        raise UsageError("fp16 is not fast on a processor; use --precision bf16 or fp32, or a GPU")
    return name


def find_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the number format that `choose_precision` does, for torch."""
    import torch

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return dtypes[choose_precision(name, device.type)]
