"""LoRA adapters as peft writes them, with random weights."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file


def write_adapter(
    folder: Path, *names: str, shape: tuple[int, int], rank: int = 4, **config: object
) -> dict[str, torch.Tensor]:
    """Write an adapter of some matrices of one shape.  -> its tensors, by peft's names."""
    numbers = torch.Generator().manual_seed(0)
    num_outputs, num_inputs = shape
    tensors: dict[str, torch.Tensor] = {}
    for name in names:
        key = f"base_model.model.{name}"
        tensors[f"{key}.lora_A.weight"] = torch.randn(rank, num_inputs, generator=numbers) * 0.3
        tensors[f"{key}.lora_B.weight"] = torch.randn(num_outputs, rank, generator=numbers) * 0.3
    folder.mkdir()
    usual = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}
    (folder / "adapter_config.json").write_text(json.dumps(usual | config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return tensors
