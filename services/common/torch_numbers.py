"""Which numbers torch computes with."""

import torch

from services.common.errors import DeviceError

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def dtype_of(compute_type: str, device: str, *, on_gpu: torch.dtype) -> torch.dtype:
    """The numbers that a setting means.

    Args:
        compute_type: ``float32``, ``float16``, ``bfloat16``, or ``auto``: ``on_gpu`` on a GPU; on a
            CPU bfloat16 if it multiplies matrices of them (AMX), else float32.
        device: ``cpu``, ``cuda`` or ``mps``.
        on_gpu: What suits the model there.

    Raises:
        DeviceError: The device does not compute with them.

    """
    if compute_type == "auto":
        if device != "cpu":
            return on_gpu
        return torch.bfloat16 if torch.cpu.get_capabilities().get("amx_bf16") else torch.float32
    if compute_type not in _DTYPES or (device == "cpu" and compute_type == "float16"):
        raise DeviceError(f"torch does not run this model in {compute_type} on {device}")
    return _DTYPES[compute_type]
