"""LoRA adapters in peft's format, merged into the weights that they adapt.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021; the files are those
of huggingface/peft: ``adapter_config.json`` and ``adapter_model.safetensors``.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file

from services.asr.engines.torch_tensors import as_array
from services.asr.engines.whisper_checkpoint import Checkpoint, read_json
from services.common.models import ModelError

_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


def merged(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """A model with an adapter in it: W becomes W + scale * B @ A. The given one stays as it is.

    Raises:
        ModelError: There is no adapter, it is of another kind, or of another model.

    """
    config = read_json(folder / "adapter_config.json")
    if config.get("peft_type") != "LORA" or config.get("use_dora") or config.get("modules_to_save"):
        raise ModelError(f"{folder} is no plain LoRA adapter: nothing else can be merged")
    try:
        loaded = load_file(folder / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder}/adapter_model.safetensors cannot be read: {error}") from error
    stored = {name: as_array(tensor).astype(np.float32) for name, tensor in loaded.items()}
    tensors = dict(checkpoint.tensors)
    names = {name.removesuffix(_DOWN).removesuffix(_UP) for name in stored}
    for name in sorted(names):
        target = f"{name.removeprefix(_PREFIX)}.weight"
        down, up = stored.get(name + _DOWN), stored.get(name + _UP)
        if down is None or up is None or target not in tensors:
            raise ModelError(f"{folder} adapts {name}, which this model cannot merge")
        weight = tensors[target]
        if weight.shape != (up.shape[0], down.shape[1]):
            raise ModelError(f"{folder} adapts a {target} of another shape: another model")
        change = _scale(config, name, down.shape[0]) * (up @ down)
        tensors[target] = (weight.astype(np.float32) + change).astype(weight.dtype)
    return replace(checkpoint, tensors=tensors)


def _scale(config: dict[str, Any], name: str, rank: int) -> float:
    """What peft multiplies the product with."""
    alpha = config.get("lora_alpha", rank)
    for pattern, own in (config.get("alpha_pattern") or {}).items():
        if name == pattern or name.endswith(f".{pattern}"):
            alpha = own
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)
