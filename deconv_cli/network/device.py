"""Where and in which number format a network runs."""

from __future__ import annotations

import torch

from deconv_cli.errors import UsageError, unknown_name

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def find_device(name: str = "auto") -> torch.device:
    """Return the device of that name; ``auto`` prefers cuda, then mps, then the processor.

    Raises
    ------
    UsageError
        If the name is unknown, or this machine does not have that device.
    """
    if name not in DEVICES:
        raise unknown_name("device", name, DEVICES)
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, present in available.items() if present)
    if not available[name]:
        raise UsageError(f"this machine (or this build of torch) has no {name} device; use --device auto or cpu")
    return torch.device(name)


def has_native_bf16(device: torch.device) -> bool:
    """Tell whether bfloat16 convolutions run in hardware, so that they are faster than float32 ones."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # torch has no public question for this; an older release that lacks one of these answers no.
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return False


def find_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the number format of that name; ``auto`` is bfloat16 where it is native, else float32.

    Raises
    ------
    UsageError
        If the name is unknown, or the format cannot run on the device.
    """
    if name not in PRECISIONS:
        raise unknown_name("precision", name, PRECISIONS)
    if name == "auto":
        return torch.bfloat16 if has_native_bf16(device) else torch.float32
    if name == "fp16" and device.type == "cpu":
        raise UsageError("fp16 is not fast on a processor; use --precision bf16 or fp32, or a GPU")
    return DTYPES[name]
