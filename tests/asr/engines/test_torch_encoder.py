from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from faster_whisper.feature_extractor import FeatureExtractor

from services.asr.engines.torch_encoder import Encoder
from services.asr.engines.torch_mel import LogMel
from services.asr.engines.torch_model import Modules, build
from services.common.audio import FloatArray
from services.common.timeline import samples
from tests.asr.engines.toy import toy_checkpoint


@pytest.fixture(scope="module")
def model(models: Callable[[str], Path]) -> Modules:
    checkpoint = toy_checkpoint(models("tiny.en") / "tokenizer.json")
    return build(checkpoint, device="cpu", dtype=torch.float32)


def sounds(*seconds: float) -> list[FloatArray]:
    """Noise, each louder than the one before."""
    numbers = np.random.default_rng(0)
    return [
        numbers.normal(0, 0.01 * 4**n, samples(s)).astype(np.float32) for n, s in enumerate(seconds)
    ]


@pytest.mark.parametrize("num_mels", [80, 128])
def test_spectrograms_are_openais_of_each_window_alone(num_mels: int) -> None:
    heard = [*sounds(3, 7.004, 0.05, 0.01), np.ones(1, np.float32)]
    found = LogMel(num_mels, "cpu")(heard, 1001).numpy()
    reference = FeatureExtractor(feature_size=num_mels)
    for mel, samples_ in zip(found, heard, strict=True):
        expected = reference(samples_)
        num_frames = expected.shape[1]
        np.testing.assert_allclose(mel[:, :num_frames], expected, atol=2e-5)
        assert not mel[:, num_frames:].any()


def test_a_full_window_is_encoded_as_transformers_does(model: Modules) -> None:
    [heard] = sounds(30)
    mel = LogMel(80, "cpu")
    [states] = Encoder(model, mel)([heard], [1500])
    expected = model.model.encoder(mel([heard], 3000)).last_hidden_state[0]
    torch.testing.assert_close(states, expected, atol=1e-4, rtol=1e-4)


def test_what_pads_a_shorter_window_is_heard_by_nobody(model: Modules) -> None:
    encode = Encoder(model, LogMel(80, "cpu"))
    heard, frames = sounds(1.0, 6.7, 2.32, 0.4), [50, 360, 116, 20]
    together = encode(heard, frames)
    for states, one, num_frames in zip(together, heard, frames, strict=True):
        assert states.shape == (num_frames, 64)
        torch.testing.assert_close(states, encode([one], [num_frames])[0], atol=1e-4, rtol=1e-4)


def test_a_window_that_pads_itself_is_another_one(model: Modules) -> None:
    """Silence behind the sound is heard: it is part of the window."""
    encode = Encoder(model, LogMel(80, "cpu"))
    heard = sounds(1.0)
    bare, padded = encode(heard, [50])[0], encode(heard, [100])[0]
    assert (bare - padded[:50]).abs().max() > 0.01
