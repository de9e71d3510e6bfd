"""Which engine gets a model."""

from pathlib import Path

import pytest

from services.asr.config import Settings
from services.asr.engines import choice
from services.asr.engines.choice import engine_of, load_engine
from services.common.models import ModelError


@pytest.mark.parametrize(
    ("files", "chosen", "engine"),
    [
        (["model.bin"], {}, "onnx"),
        (["model.bin"], {"compute_type": "int8"}, "onnx"),
        (["model.bin", "model.safetensors"], {}, "onnx"),
        (["model.bin"], {"engine": "ctranslate2"}, "ctranslate2"),
        (["model.bin"], {"compute_type": "float32"}, "ctranslate2"),
        (["model.bin"], {"device": "cuda"}, "ctranslate2"),
        (["model.bin"], {"engine": "torch"}, "torch"),
        (["model.bin"], {"device": "mps"}, "torch"),
        (["model.bin"], {"lora": "adapter"}, "torch"),
        (["model.bin"], {"alignment_heads": "[[1, 2]]"}, "torch"),
        (["model.bin"], {"beam_size": 5}, "ctranslate2"),
        (["model.safetensors"], {}, "torch"),
        (["model-00001-of-00002.safetensors"], {}, "torch"),
        (["tiny.en.pt"], {}, "torch"),
        (["tiny.en.pt"], {"engine": "ctranslate2"}, "ctranslate2"),
        (["tiny.en.pt"], {"engine": "onnx"}, "onnx"),
        ([], {}, "ctranslate2"),
    ],
)
def test_the_engine_is_the_one_that_reads_the_model_and_does_what_is_asked(
    files: list[str], chosen: dict[str, object], engine: str, tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert engine_of(Settings(model=str(tmp_path), **chosen), tmp_path) == engine  # type: ignore[arg-type]


def test_a_file_of_weights_is_for_torch(tmp_path: Path) -> None:
    path = tmp_path / "tiny.en.pt"
    path.touch()
    assert engine_of(Settings(model=str(path)), path) == "torch"


@pytest.mark.parametrize(
    ("installed", "engine"),
    [
        ({"ctranslate2", "onnx", "onnxruntime"}, "onnx"),
        ({"ctranslate2", "onnx", "torch"}, "ctranslate2"),
        ({"ctranslate2", "onnxruntime"}, "ctranslate2"),
        ({"onnx", "onnxruntime", "torch"}, "torch"),
    ],
)
def test_where_an_engine_is_missing_another_takes_its_models(
    installed: set[str], engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.bin").touch()
    monkeypatch.setattr(choice, "find_spec", lambda name: name in installed or None)
    assert engine_of(Settings(model=str(tmp_path)), tmp_path) == engine


@pytest.mark.parametrize(
    ("chosen", "complaint"),
    [
        ({"engine": "ctranslate2", "device": "mps"}, "ASR_DEVICE=mps works with ASR_ENGINE=torch"),
        ({"engine": "ctranslate2", "lora": "x"}, "ASR_LORA works with ASR_ENGINE=torch"),
        ({"engine": "ctranslate2", "alignment_heads": "x"}, "ASR_ALIGNMENT_HEADS works with"),
        ({"engine": "onnx", "lora": "x"}, "ASR_LORA works with ASR_ENGINE=torch"),
        ({"engine": "onnx", "device": "cuda"}, "ASR_DEVICE=cuda does not work with"),
        ({"engine": "onnx", "compute_type": "float32"}, "ASR_COMPUTE_TYPE=float32 does not work"),
        ({"engine": "onnx", "beam_size": 2}, "ASR_BEAM_SIZE=2 does not work with ASR_ENGINE=onnx"),
        ({"engine": "torch", "beam_size": 2}, "ASR_BEAM_SIZE has to be 1"),
        ({"lora": "x", "beam_size": 2}, "ASR_BEAM_SIZE has to be 1"),
    ],
)
def test_what_an_engine_does_not_do_is_said(
    chosen: dict[str, object], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=complaint):
        engine_of(Settings(model=str(tmp_path), **chosen), tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("engine", "extra"), [("torch", "asr-torch"), ("ctranslate2", "asr"), ("onnx", "asr")]
)
def test_an_engine_that_is_not_installed_says_how_to_install_it(
    engine: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda _name: None)
    settings = Settings(model=str(tmp_path), engine=engine)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=rf"pip install 'voxmesh\[{extra}\]'"):
        load_engine(settings, workers=1, threads=1)
