"""NLLB-200 on transformers: CPUs, and whatever GPUs torch knows.

Source: ``M2M100ForConditionalGeneration`` of transformers. Its ``generate`` is left out: it takes
prefixes of one length alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from torch.nn.utils.rnn import pad_sequence
from transformers import M2M100ForConditionalGeneration
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from services.common.errors import DeviceError
from services.common.models import ModelError
from services.common.torch_numbers import dtype_of
from services.translator.engines.nllb import Ask, Said

Modules: TypeAlias = Any
"""``M2M100ForConditionalGeneration``, without types in transformers."""


class TransformersNllb:
    """The network. Implements ``Network``."""

    def __init__(self, folder: Path, *, device: str, compute_type: str, threads: int) -> None:
        """Load it.

        Args:
            folder: What transformers' ``save_pretrained`` made, as Hugging Face publishes it.
            device: ``cpu`` or ``cuda``.
            compute_type: ``float32``, ``float16``, ``bfloat16``, or ``auto``: see ``dtype_of``.
            threads: Cores, on a CPU. For the whole process: torch knows no other way.

        Raises:
            ModelError: The folder holds no such model.
            DeviceError: The device is not there, or does not compute with such numbers.

        """
        # The other kinds of attention do not tell where they look.
        self._model = load_modules(folder, device, compute_type, threads, attention="eager")
        self._device = device

    def decode(self, asks: Sequence[Ask]) -> list[Said]:
        """See ``Network``."""
        try:
            with torch.inference_mode():
                return self._decode(asks)
        except RuntimeError as error:
            # Also what is raised when memory or the device is gone.
            raise DeviceError(f"the model failed: {error}") from error

    def _decode(self, asks: Sequence[Ask]) -> list[Said]:
        sources, num_heard = self._rows([ask.source for ask in asks])
        begins, num_begun = self._rows([ask.begin for ask in asks])
        limits = torch.tensor([[ask.limit] for ask in asks], device=self._device)
        ends = torch.tensor([[ask.source[-1]] for ask in asks], device=self._device)
        places = torch.arange(sources.shape[1], device=self._device)
        mask = places < num_heard
        # The language comes before the text's tokens, the end behind them.
        around = ~((places > 0) & (places < num_heard - 1))[:, None]
        states = self._model.model.encoder(sources, attention_mask=mask).last_hidden_state
        # What all targets begin with is read at once; longer prefixes are said token by token.
        said = new = begins[:, : int(num_begun.min())]
        looks = []
        cache = None
        done = torch.zeros_like(limits, dtype=torch.bool)
        while not done.all():
            found = self._model.model.decoder(
                new,
                encoder_hidden_states=states,
                encoder_attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                output_attentions=True,
            )
            cache = found.past_key_values
            weights = found.cross_attentions[-1][:, 0].masked_fill(around, -1)
            looks.append(weights.argmax(-1))
            place = said.shape[1]
            new = self._model.lm_head(found.last_hidden_state[:, -1:]).argmax(-1)
            free = num_begun <= place
            if place < begins.shape[1]:
                new = torch.where(free, new, begins[:, place : place + 1])
            said = torch.cat([said, new], dim=1)
            done |= (free & (new == ends)) | (limits <= place)
        return [
            _said(ids, seen, ask)
            for ids, seen, ask in zip(
                said.tolist(), torch.cat(looks, dim=1).tolist(), asks, strict=True
            )
        ]

    def _rows(self, ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """(texts, tokens) padded, and (texts, 1) how long each is."""
        rows = pad_sequence(
            [torch.tensor(one) for one in ids],
            batch_first=True,
            padding_value=self._model.config.pad_token_id,
        )
        lengths = torch.tensor([[len(one)] for one in ids])
        return rows.to(self._device), lengths.to(self._device)


def load_modules(
    folder: Path, device: str, compute_type: str, threads: int, *, attention: str | None = None
) -> Modules:
    """Load an NLLB, as ``TransformersNllb`` does; ``attention`` as transformers names its kinds.

    Raises:
        ModelError: The folder holds no such model.
        DeviceError: The device is not there, or does not compute with such numbers.

    """
    dtype = dtype_of(compute_type, device, on_gpu=torch.float16)
    if device == "cpu":
        torch.set_num_threads(threads)
    try:
        disable_progress_bar()
        # Its table of weights that are not needed is no line of this service's log.
        set_verbosity_error()
        model: Modules
        model, loaded = M2M100ForConditionalGeneration.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder} holds no NLLB: {error}") from error
    if lacking := sorted(loaded["missing_keys"]):
        raise ModelError(f"{folder} holds no whole NLLB: it lacks {lacking[0]}")
    try:
        return model.to(device).eval().requires_grad_(False)
    except (RuntimeError, AssertionError) as error:
        # A torch without CUDA says so with an assertion.
        raise DeviceError(f"the model cannot be loaded on {device}: {error}") from error


def _said(ids: list[int], looks: list[int], ask: Ask) -> Said:
    """What a row says until its end; what it looked at to say a token comes one before it."""
    until = min(len(ids), ask.limit + 1)
    if ask.source[-1] in ids[len(ask.begin) : until]:
        until = ids.index(ask.source[-1], len(ask.begin))
    return Said(ids[2:until], [max(0, place - 1) for place in looks[1 : until - 1]])
