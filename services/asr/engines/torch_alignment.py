"""``whisper_alignment.token_frames`` for what lies on a device: only the path leaves it."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it
from numpy.typing import NDArray

from services.asr.engines.whisper_alignment import MEDIAN_WIDTH, median_of_seven, path_starts


def token_frames(scores: torch.Tensor, num_before: int) -> NDArray[np.int64]:
    """Where each token starts: as there, of (heads, num_before + n, frames) float32."""
    weights = scores.softmax(-1)
    deviation, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    smooth = _median((weights - mean) / deviation.clamp_min(1e-10)).mean(0)
    return path_starts(-smooth[num_before - 1 :].cpu().numpy().astype(np.float64))


def _median(values: torch.Tensor) -> torch.Tensor:
    around, length = MEDIAN_WIDTH // 2, values.shape[-1]
    if length <= around:
        return values
    padded = F.pad(values, (around, around), mode="reflect")
    shifted = [padded[..., n : n + length] for n in range(MEDIAN_WIDTH)]
    return median_of_seven(shifted, torch.minimum, torch.maximum)
