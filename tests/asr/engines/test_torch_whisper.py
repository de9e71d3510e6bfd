"""Whisper on torch: against transformers, against CTranslate2, and what it is for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from services.asr.engines.ctranslate2_whisper import CTranslate2Whisper
from services.asr.engines.torch_decoder import Decoder
from services.asr.engines.torch_model import build
from services.asr.engines.torch_whisper import TorchWhisper
from services.asr.engines.whisper_weights import load_checkpoint
from services.asr.recognizer import Window
from services.common.audio import FloatArray
from services.common.errors import DeviceError
from services.common.models import ModelError
from services.common.timeline import samples
from services.common.words import text_of
from tests.asr.conftest import FRAMING
from tests.asr.engines.hearing import alone, part, tokens_of
from tests.asr.engines.toy import SHAPE, load_torch, toy_checkpoint, without

Models = Callable[[str], Path]


# --- the same numbers as others


@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_the_same_weights_say_the_same_as_in_ctranslate2(
    name: str, models: Models, two_cities: FloatArray
) -> None:
    """float16 weights, both computing in float32."""
    other = CTranslate2Whisper(
        models(name),
        device="cpu",
        compute_type="float32",
        workers=1,
        threads=1,
        beam_size=1,
        framing=FRAMING,
    )
    model = load_torch(load_checkpoint(models(name)))
    for first in (0, 9, 25):
        window = part(two_cities, first, first + 6.2)
        here = alone(model, window)
        [there] = other.recognize([window])
        assert [word.text for word in here.words] == [word.text for word in there.words]
        assert [word.probability for word in here.words] == pytest.approx(
            [word.probability for word in there.words], abs=2e-3
        )
        assert here.no_speech_probability == pytest.approx(there.no_speech_probability, abs=1e-4)
        assert here.language_code == there.language_code
        assert here.language_probability == pytest.approx(there.language_probability, abs=1e-4)
        # Attention is normalised over one token less: the end is not said again.
        apart = [
            abs(one.first_sample - other_.first_sample)
            for one, other_ in zip(here.words, there.words, strict=True)
        ]
        assert np.median(apart) == 0
        assert max(apart) <= samples(0.3)


def test_the_decoder_says_what_transformers_says(models: Models) -> None:
    model = build(
        toy_checkpoint(models("tiny.en") / "tokenizer.json"), device="cpu", dtype=torch.float32
    )
    decoder = Decoder(model, [(1, 1), (2, 0), (2, 3)])
    numbers = torch.Generator().manual_seed(1)
    states = torch.randn(2, 40, SHAPE.n_audio_state, generator=numbers)
    ids = torch.randint(0, 50_000, (2, 9), generator=numbers)
    with torch.inference_mode():
        expected = model(decoder_input_ids=ids, encoder_outputs=(states,)).logits
        sound, text = decoder.hear(list(states)), decoder.begin(2)
        first, _ = decoder(ids[:, :6], torch.arange(6).expand(2, 6), 6, text, sound)
        rest = [
            decoder(ids[:, n : n + 1], torch.full((2, 1), n), n + 1, text, sound)[0]
            for n in range(6, 9)
        ]
        found = decoder.logits(torch.cat([first, *rest], 1))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_the_probability_of_no_speech_is_read_where_the_text_starts(
    torch_tiny: TorchWhisper, models: Models, beckett: FloatArray
) -> None:
    """P20: behind a prompt, that is not the first position."""
    prompt = torch_tiny.encode_text(" They went on and did not stop.")
    window = part(beckett, 0, 5, prompt=prompt)
    model = build(load_checkpoint(models("tiny.en")), device="cpu", dtype=torch.float32)
    with torch.inference_mode():
        states = torch_tiny._states([window])[0]
        ids = torch.tensor([[50360, *prompt, 50257]])
        logits = model(decoder_input_ids=ids, encoder_outputs=(states[None],)).logits
    expected = float(logits[0, -1].softmax(-1)[50361])
    assert alone(torch_tiny, window).no_speech_probability == pytest.approx(expected, abs=1e-4)


# --- what it may say


def test_prompt_and_text_fit_into_the_positions_together(torch_toy: TorchWhisper) -> None:
    """Random weights never end a text by themselves."""
    noise = np.random.default_rng(3).normal(0, 0.1, samples(30)).astype(np.float32)
    [(row, _)] = torch_toy._decode([Window(noise, 0, prompt=tuple(range(1000, 1223)))])
    assert len(row.start) == 226
    assert len(row.tokens) == 448 - 226


def test_only_text_is_said(torch_toy: TorchWhisper, two_cities: FloatArray) -> None:
    windows = [part(two_cities, first, first + 5, temperature=2.0) for first in range(6)]
    for row, _ in torch_toy._decode(windows):
        assert row.tokens
        assert max(row.tokens) < 50_256
        assert not set(row.tokens) & set(torch_toy._tokens.unspoken())
        assert row.tokens[0] != 220


def test_half_a_character_is_never_shown(models: Models, two_cities: FloatArray) -> None:
    tokenizer = models("tiny.en") / "tokenizer.json"
    usual = load_torch(toy_checkpoint(tokenizer))
    speaks = {token for char in "鷹鯨🙂ß" for token in usual.encode_text(char)}
    model = load_torch(toy_checkpoint(tokenizer, speaks=speaks))
    windows = [part(two_cities, first, first + 4) for first in range(0, 40, 4)]
    texts, halves = "", 0
    for row, heard in zip(model._decode(windows), model.recognize(windows), strict=True):
        texts += text_of(heard.words)
        halves += len(row[0].tokens) - len(tokens_of(heard))
    assert halves > 0, "there was something to leave out"
    assert set(texts) <= set("鷹鯨🙂ß")


# --- chance


def test_chance_is_the_same_in_every_batch(torch_tiny: TorchWhisper, beckett: FloatArray) -> None:
    windows = [part(beckett, first, first + 4, temperature=1.0) for first in (0, 1, 2)]
    texts = [text_of(heard.words) for heard in torch_tiny.recognize(windows)]
    assert texts == [text_of(alone(torch_tiny, window).words) for window in windows]
    mixed = torch_tiny.recognize([windows[0], replace(windows[0], temperature=0.0)])
    assert text_of(mixed[0].words) == texts[0]


def test_a_token_is_drawn_as_often_as_it_is_probable(torch_toy: TorchWhisper) -> None:
    from services.asr.engines.torch_round import Row, _draw

    logits = torch.tensor([[float("-inf"), 0.0, 1.0, float("-inf")]]).expand(4000, 4)
    chance = np.random.default_rng(0)
    rows = [Row([], 0, [], 1, 1, temperature=0.5, chance=chance) for _ in range(4000)]
    drawn = _draw(logits, rows)
    assert set(drawn.tolist()) == {1, 2}
    # e^(1/0.5) : 1
    assert (drawn == 2).float().mean() == pytest.approx(0.881, abs=0.02)


# --- loading


def test_bfloat16_says_about_the_same(models: Models, beckett: FloatArray) -> None:
    model = load_torch(load_checkpoint(models("tiny.en")), compute_type="bfloat16")
    assert model.engine == "torch/cpu/bfloat16"
    assert "again" in text_of(alone(model, part(beckett, 0, 9)).words).lower()


def test_auto_is_bfloat16_only_where_the_cpu_multiplies_it(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = toy_checkpoint(models("tiny.en") / "tokenizer.json")
    for has_amx, name in ((False, "float32"), (True, "bfloat16")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has_amx: {"amx_bf16": has})
        assert load_torch(checkpoint, compute_type="auto").engine == f"torch/cpu/{name}"


@pytest.mark.parametrize("compute_type", ["int8", "float16", "int8_float16"])
def test_numbers_that_a_cpu_does_not_compute_with_are_refused(
    compute_type: str, models: Models
) -> None:
    checkpoint = toy_checkpoint(models("tiny.en") / "tokenizer.json")
    with pytest.raises(DeviceError, match=f"does not run this model in {compute_type} on cpu"):
        load_torch(checkpoint, compute_type=compute_type)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_says_so(device: str, models: Models) -> None:
    if getattr(torch, device).is_available():
        pytest.skip(f"this machine has {device}")
    checkpoint = toy_checkpoint(models("tiny.en") / "tokenizer.json")
    with pytest.raises(DeviceError, match=f"cannot be loaded on {device}"):
        load_torch(checkpoint, device=device)


def test_a_device_that_fails_at_work_is_a_device_error(
    torch_toy: TorchWhisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory is left")

    monkeypatch.setattr(torch_toy, "_encode", fail)
    with pytest.raises(DeviceError, match="no memory is left"):
        torch_toy.recognize([Window(np.zeros(16_000, np.float32), 0)])


def test_wrong_weights_and_wrong_heads_are_model_errors(models: Models) -> None:
    checkpoint = toy_checkpoint(models("tiny.en") / "tokenizer.json")
    with pytest.raises(ModelError, match="are missing"):
        load_torch(without(checkpoint, "model.encoder.conv1.bias"))
    with pytest.raises(ModelError, match=r"no head \[7, 0\]"):
        load_torch(checkpoint, alignment_heads="[[7, 0]]")


def test_a_text_that_fills_the_model_goes_with_a_longer_draft(
    torch_toy: TorchWhisper, two_cities: FloatArray
) -> None:
    full = part(two_cities, 0, 30, prompt=tuple(range(1000, 1300)))
    said = tokens_of(alone(torch_toy, full))
    assert len(said) > 200
    mistaken = replace(full, draft=tuple(5 if token == 4 else 4 for token in said))
    almost = replace(full, draft=said[:-4])
    for heard in torch_toy.recognize([almost, mistaken]):
        assert tokens_of(heard) == said


def test_other_heads_see_words_elsewhere(models: Models, beckett: FloatArray) -> None:
    checkpoint = load_checkpoint(models("tiny.en"))
    window = part(beckett, 0, 9)
    usual = alone(load_torch(checkpoint), window)
    named = alone(load_torch(checkpoint, alignment_heads="[[3, 3], [3, 4]]"), window)
    assert text_of(named.words) == text_of(usual.words)
    assert [w.first_sample for w in named.words] != [w.first_sample for w in usual.words]
