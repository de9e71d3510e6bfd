"""The same weights out of every format."""

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ctranslate2.converters.transformers import WhisperLoader
from safetensors.torch import save_file

from services.asr.engines import openai_format
from services.asr.engines.torch_model import build
from services.asr.engines.torch_tensors import as_array, as_tensor
from services.asr.engines.whisper_checkpoint import Checkpoint, Tensors
from services.asr.engines.whisper_weights import load_checkpoint, write_openai
from services.common.models import ModelError
from tests.asr.engines.toy import HEADS, SHAPE, toy_checkpoint, without

Models = Callable[[str], Path]


@pytest.fixture(scope="module")
def tiny_en(models: Models) -> Path:
    return models("tiny.en")


@pytest.fixture(scope="module")
def toy(tiny_en: Path) -> Checkpoint:
    return toy_checkpoint(tiny_en / "tokenizer.json", tied=True)


def assert_equal(one: Tensors, other: Tensors) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert np.array_equal(tensor, other[name]), name


def hugging_face(checkpoint: Checkpoint, folder: Path, *, parts: int = 1) -> Path:
    """Write a model as transformers would."""
    folder.mkdir()
    model = build(checkpoint, device="cpu", dtype=torch.float32)
    model.config.save_pretrained(folder)
    tensors = list(checkpoint.tensors.items())
    for part in range(parts):
        name = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        save_file({n: as_tensor(t) for n, t in tensors[part::parts]}, folder / name)
    (folder / "generation_config.json").write_text(json.dumps({"alignment_heads": HEADS}))
    shutil.copy(checkpoint.tokenizer, folder / "tokenizer.json")
    return folder


def converted(checkpoint: Checkpoint, folder: Path, quantization: str | None) -> Path:
    """Write a model as CTranslate2's converter does."""
    model = copy.deepcopy(build(checkpoint, device="cpu", dtype=torch.float32))
    spec = WhisperLoader().get_model_spec(model)
    spec.config.alignment_heads = HEADS
    spec.register_vocabulary([f"<{token}>" for token in range(SHAPE.n_vocab)])
    spec.validate()
    spec.optimize(quantization)
    folder.mkdir()
    spec.save(folder)
    shutil.copy(checkpoint.tokenizer, folder / "tokenizer.json")
    return folder


def test_weights_of_openai_come_back_as_they_were_written(toy: Checkpoint, tmp_path: Path) -> None:
    openai_format.write(toy, tmp_path / "toy.pt")
    read = load_checkpoint(tmp_path)
    assert read.dimensions == SHAPE
    assert_equal(read.tensors, toy.tensors)
    assert read.alignment_heads == ((1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3))
    assert load_checkpoint(tmp_path / "toy.pt").dimensions == SHAPE, "or the file itself"


def test_openai_finds_the_names_that_it_gives(toy: Checkpoint, tmp_path: Path) -> None:
    """As in openai/whisper's ``model.py``."""
    openai_format.write(toy, tmp_path / "toy.pt")
    stored = torch.load(tmp_path / "toy.pt", weights_only=True)
    assert stored["dims"]["n_text_layer"] == 3
    names = stored["model_state_dict"].keys()
    assert len(names) == len(toy.tensors)
    block = {name.split(".", 3)[3] for name in names if name.startswith("decoder.blocks.0.")}
    linear = {f"{part}.{what}" for part in ("query", "value", "out") for what in ("weight", "bias")}
    attention = {*linear, "key.weight"}
    norms = {f"{norm}.{what}" for norm in ("attn_ln", "cross_attn_ln", "mlp_ln") for what in WB}
    assert block == {
        *(f"attn.{name}" for name in attention),
        *(f"cross_attn.{name}" for name in attention),
        *norms,
        *(f"mlp.{number}.{what}" for number in (0, 2) for what in WB),
    }
    assert {name for name in names if ".blocks." not in name} == {
        *(f"encoder.{conv}.{what}" for conv in ("conv1", "conv2") for what in WB),
        *("encoder.positional_embedding", "encoder.ln_post.weight", "encoder.ln_post.bias"),
        *("decoder.token_embedding.weight", "decoder.positional_embedding"),
        *("decoder.ln.weight", "decoder.ln.bias"),
    }


WB = ("weight", "bias")


@pytest.mark.parametrize("parts", [1, 3])
def test_weights_of_hugging_face_are_read_in_one_file_or_several(
    parts: int, toy: Checkpoint, tmp_path: Path
) -> None:
    read = load_checkpoint(hugging_face(toy, tmp_path / "toy", parts=parts))
    assert read.dimensions == SHAPE
    assert_equal(read.tensors, toy.tensors)
    assert read.alignment_heads == HEADS


@pytest.mark.parametrize("quantization", [None, "float16", "bfloat16", "int8"])
@pytest.mark.parametrize("tied", [True, False])
def test_weights_of_ctranslate2_are_those_that_its_converter_was_given(
    tied: bool, quantization: str | None, tiny_en: Path, tmp_path: Path
) -> None:
    toy = toy_checkpoint(tiny_en / "tokenizer.json", tied=tied)
    read = load_checkpoint(converted(toy, tmp_path / "toy", quantization))
    assert read.dimensions == SHAPE
    assert read.alignment_heads == HEADS
    if quantization == "int8":
        assert read.tensors.keys() == toy.tensors.keys()
        for name, tensor in toy.tensors.items():
            step = np.abs(tensor).max() / 127
            assert np.abs(read.tensors[name] - tensor).max() <= step, name
    else:
        dtype = getattr(torch, quantization or "float32")
        rounded = {name: as_tensor(tensor).to(dtype) for name, tensor in toy.tensors.items()}
        assert_equal(read.tensors, {name: as_array(tensor) for name, tensor in rounded.items()})


@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_an_installed_model_is_the_same_written_as_openai_does(
    name: str, models: Models, tmp_path: Path
) -> None:
    write_openai(models(name), tmp_path / f"{name}.pt")
    assert (tmp_path / f"{name}.pt").stat().st_size < 1.01 * (
        models(name) / "model.bin"
    ).stat().st_size
    here, there = load_checkpoint(models(name)), load_checkpoint(tmp_path / f"{name}.pt")
    assert here.dimensions == there.dimensions
    assert_equal(here.tensors, there.tensors)
    assert {tensor.dtype for tensor in there.tensors.values()} == {np.dtype(np.float16)}
    # Beside the file lies no tokenizer, and in it no heads: its name and its size tell.
    assert there.tokenizer == here.tokenizer
    assert there.alignment_heads == here.alignment_heads


def test_weights_that_lack_something_make_no_model(toy: Checkpoint) -> None:
    with pytest.raises(ModelError, match=r"1 are missing \['model.decoder.layer_norm.bias'\]"):
        build(without(toy, "model.decoder.layer_norm.bias"), device="cpu", dtype=torch.float32)
    more = toy.tensors | {"more": np.zeros(1)}
    with pytest.raises(ModelError, match=r"1 are unknown \['more'\]"):
        build(replace(toy, tensors=more), device="cpu", dtype=torch.float32)
    wide = toy.tensors | {"model.decoder.layer_norm.bias": np.zeros(65)}
    with pytest.raises(ModelError, match="do not fit"):
        build(replace(toy, tensors=wide), device="cpu", dtype=torch.float32)


class Executed:
    """What a hostile checkpoint would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


def damaged(how: str, toy: Checkpoint, folder: Path, tiny_en: Path) -> Path:
    """A folder with something that is no model."""
    match how:
        case "nothing":
            folder.mkdir()
        case "two .pt files":
            folder.mkdir()
            (folder / "a.pt").touch()
            (folder / "b.pt").touch()
        case "an empty .pt file":
            folder.mkdir()
            (folder / "a.pt").touch()
        case "another .pt file":
            folder.mkdir()
            torch.save({"weights": torch.zeros(1)}, folder / "a.pt")
        case "a program":
            folder.mkdir()
            torch.save({"dims": Executed()}, folder / "a.pt")
        case "half a model.bin":
            folder.mkdir()
            content = (tiny_en / "model.bin").read_bytes()
            (folder / "model.bin").write_bytes(content[: len(content) // 2])
        case "another model.bin":
            folder.mkdir()
            (folder / "model.bin").write_bytes(b"\x06\0\0\0\x0a\0MarianSpec\0")
        case "half a safetensors file":
            hugging_face(toy, folder)
            [path] = folder.glob("*.safetensors")
            path.write_bytes(path.read_bytes()[:-1])
        case "no configuration":
            hugging_face(toy, folder)
            (folder / "config.json").unlink()
        case "another configuration":
            hugging_face(toy, folder)
            (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ("nothing", r"no model\.bin, no \.safetensors and no \.pt file"),
        ("two .pt files", r"several \.pt files"),
        ("an empty .pt file", "no checkpoint of OpenAI's"),
        ("another .pt file", "no checkpoint of OpenAI's: 'dims'"),
        ("a program", "more than weights"),
        ("half a model.bin", "it ends inside"),
        ("another model.bin", "damaged"),
        ("half a safetensors file", "damaged"),
        ("no configuration", "cannot be read"),
        ("another configuration", "not a Whisper model's: 'encoder_attention_heads'"),
    ],
)
def test_what_is_no_model_says_why(
    how: str, complaint: str, toy: Checkpoint, tmp_path: Path, tiny_en: Path
) -> None:
    folder = damaged(how, toy, tmp_path / "model", tiny_en)
    with pytest.raises(ModelError, match=complaint):
        load_checkpoint(folder)


def test_a_model_without_a_tokenizer_says_where_to_get_one(
    toy: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openai_format.write(toy, tmp_path / "toy.pt")
    monkeypatch.setenv("VOXMESH_MODELS", str(tmp_path / "none"))
    with pytest.raises(ModelError, match=r"has no tokenizer\.json: copy it there"):
        load_checkpoint(tmp_path)


def test_a_projection_of_its_own_does_not_fit_into_openais_format(
    tiny_en: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="a projection of its own"):
        openai_format.write(toy_checkpoint(tiny_en / "tokenizer.json"), tmp_path / "toy.pt")
