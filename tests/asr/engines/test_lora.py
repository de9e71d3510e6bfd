from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services.asr.engines.lora import merged
from services.asr.engines.torch_model import build
from services.asr.engines.whisper_checkpoint import Checkpoint
from services.common.models import ModelError
from tests.asr.engines.adapter import write_adapter
from tests.asr.engines.toy import SHAPE, toy_checkpoint

QUERY = "model.decoder.layers.1.encoder_attn.q_proj"
KEY = "model.encoder.layers.0.self_attn.k_proj"
SQUARE = (64, 64)


@pytest.fixture(scope="module")
def toy(models: Callable[[str], Path]) -> Checkpoint:
    return toy_checkpoint(models("tiny.en") / "tokenizer.json")


def logits(checkpoint: Checkpoint, adapter: dict[str, torch.Tensor], scale: float) -> torch.Tensor:
    """Of a model beside which an adapter runs, as in training."""
    model = build(checkpoint, device="cpu", dtype=torch.float32)
    numbers = torch.Generator().manual_seed(2)
    mel = torch.randn(1, 80, 3000, generator=numbers)
    ids = torch.randint(0, 50_000, (1, 5), generator=numbers)
    for name in {key.split(".lora_")[0] for key in adapter}:
        down, up = adapter[f"{name}.lora_A.weight"], adapter[f"{name}.lora_B.weight"]
        model.get_submodule(name.removeprefix("base_model.model.")).register_forward_hook(
            lambda _module, inputs, output, down=down, up=up: (
                output + scale * (inputs[0] @ down.T @ up.T)
            )
        )
    with torch.inference_mode():
        found: torch.Tensor = model(input_features=mel, decoder_input_ids=ids).logits
    return found


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 2.0),
        ({"lora_alpha": 3}, 0.75),
        ({"lora_alpha": 3, "use_rslora": True}, 1.5),
        ({"alpha_pattern": {"q_proj": 4, "k_proj": 4}}, 1.0),
    ],
)
def test_a_merged_model_is_the_model_with_the_adapter_beside_it(
    config: dict[str, Any], scale: float, toy: Checkpoint, tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "lora", QUERY, KEY, shape=SQUARE, rank=4, **config)
    before = toy.tensors[f"{KEY}.weight"].copy()
    found = logits(merged(toy, tmp_path / "lora"), {}, 0)
    torch.testing.assert_close(found, logits(toy, adapter, scale), atol=2e-3, rtol=1e-3)
    assert (found - logits(toy, {}, 0)).abs().max() > 0.1, "it changes something"
    assert np.array_equal(toy.tensors[f"{KEY}.weight"], before), "the given one stays"


def test_weights_keep_their_numbers(toy: Checkpoint, tmp_path: Path) -> None:
    write_adapter(tmp_path / "lora", KEY, shape=SQUARE)
    half = {name: tensor.astype(np.float16) for name, tensor in toy.tensors.items()}
    found = merged(Checkpoint(SHAPE, half, toy.tokenizer, ()), tmp_path / "lora")
    assert {tensor.dtype for tensor in found.tensors.values()} == {np.dtype(np.float16)}


@pytest.mark.parametrize(
    ("names", "shape", "config", "complaint"),
    [
        ([KEY], SQUARE, {"peft_type": "LOHA"}, "no plain LoRA"),
        ([KEY], SQUARE, {"use_dora": True}, "no plain LoRA"),
        ([KEY], SQUARE, {"modules_to_save": ["proj_out"]}, "no plain LoRA"),
        (["model.decoder.layers.9.fc1"], SQUARE, {}, "layers.9.fc1, which this model cannot merge"),
        ([KEY], (64, 128), {}, "another shape"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    names: list[str],
    shape: tuple[int, int],
    config: dict[str, Any],
    complaint: str,
    toy: Checkpoint,
    tmp_path: Path,
) -> None:
    write_adapter(tmp_path / "lora", *names, shape=shape, **config)
    with pytest.raises(ModelError, match=complaint):
        merged(toy, tmp_path / "lora")


def test_a_folder_without_an_adapter_is_refused(toy: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"adapter_config\.json cannot be read"):
        merged(toy, tmp_path)
    write_adapter(tmp_path / "lora", KEY, shape=SQUARE)
    (tmp_path / "lora" / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(ModelError, match="cannot be read"):
        merged(toy, tmp_path / "lora")
