"""The torch and the ONNX engines, beside those of the folder above."""

from collections.abc import Callable
from pathlib import Path

import pytest

from services.asr.engines.onnx_whisper import OnnxWhisper
from services.asr.engines.torch_whisper import TorchWhisper
from services.asr.engines.whisper_weights import load_checkpoint
from tests.asr.conftest import FRAMING
from tests.asr.engines.toy import load_torch, toy_checkpoint


@pytest.fixture(scope="session")
def torch_tiny(models: Callable[[str], Path]) -> TorchWhisper:
    """The weights of tiny.en."""
    return load_torch(load_checkpoint(models("tiny.en")))


@pytest.fixture(scope="session")
def torch_base(models: Callable[[str], Path]) -> TorchWhisper:
    """The weights of base."""
    return load_torch(load_checkpoint(models("base")))


@pytest.fixture(scope="session")
def torch_toy(models: Callable[[str], Path]) -> TorchWhisper:
    """Random weights: it says nonsense, and another one for every sound."""
    return load_torch(toy_checkpoint(models("tiny.en") / "tokenizer.json"))


@pytest.fixture(scope="session")
def onnx_tiny(models: Callable[[str], Path]) -> OnnxWhisper:
    """The weights of tiny.en."""
    return OnnxWhisper(models("tiny.en"), workers=1, threads=1, framing=FRAMING)


@pytest.fixture(scope="session")
def onnx_base(models: Callable[[str], Path]) -> OnnxWhisper:
    """The weights of base."""
    return OnnxWhisper(models("base"), workers=1, threads=1, framing=FRAMING)
