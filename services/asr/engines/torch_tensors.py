"""From torch's tensors to numpy's arrays, and back."""

import torch

from services.asr.engines.whisper_checkpoint import Tensor


def as_array(tensor: torch.Tensor) -> Tensor:
    """The same numbers; bfloat16, which numpy lacks, as float32."""
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    array: Tensor = tensor.detach().cpu().numpy()
    return array


def as_tensor(array: Tensor) -> torch.Tensor:
    """The same memory."""
    return torch.from_numpy(array)
