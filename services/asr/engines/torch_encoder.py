"""Whisper's encoder on short windows, several at a time; none hears the padding behind another."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it

from services.asr.engines.torch_mel import LogMel
from services.asr.engines.torch_model import Modules
from services.common.audio import FloatArray


class Encoder:
    """Sound in, states out."""

    def __init__(self, model: Modules, mel: LogMel) -> None:
        self._encoder = model.model.encoder
        self._mel = mel

    def __call__(
        self, heard: Sequence[FloatArray], num_frames: Sequence[int]
    ) -> list[torch.Tensor]:
        """Encode windows.

        Args:
            heard: Samples of each, float32.
            num_frames: Encoder frames of 20 ms that each gets: what was heard, and a pad.

        Returns:
            The states of each, (its frames, d).

        """
        enc = self._encoder
        lengths = torch.tensor(num_frames, device=enc.conv1.weight.device)
        beyond = torch.arange(max(num_frames), device=lengths.device) >= lengths[:, None]
        mel = self._mel(heard, 2 * max(num_frames))
        mel = mel.masked_fill(beyond.repeat_interleave(2, -1)[:, None], 0.0)
        # With two mel frames to one of its own, a window's last state reads none of the padding.
        x = F.gelu(enc.conv1(mel.to(enc.conv1.weight.dtype)))
        x = F.gelu(enc.conv2(x)).transpose(1, 2)
        x = x + enc.embed_positions.weight[: x.shape[1]]
        bias = None
        if min(num_frames) < max(num_frames):
            bias = torch.zeros(beyond.shape, dtype=x.dtype, device=x.device)
            bias = bias.masked_fill(beyond, float("-inf"))[:, None, None]
        for layer in enc.layers:
            x = layer(x, bias)
        states = enc.layer_norm(x)
        return [row[:length] for row, length in zip(states, num_frames, strict=True)]
