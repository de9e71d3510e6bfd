"""Whisper decoded by ONNX Runtime: against torch, and what it is for."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from services.asr.engines.ctranslate2_format import load
from services.asr.engines.onnx_decoder import Decoder
from services.asr.engines.onnx_graph import sound_graph
from services.asr.engines.onnx_round import Row, _draw, decode
from services.asr.engines.onnx_whisper import OnnxWhisper
from services.asr.engines.torch_model import build
from services.asr.engines.whisper_checkpoint import Checkpoint
from services.asr.engines.whisper_row import row_of, vocabulary_of
from services.asr.engines.whisper_tokens import WhisperTokens
from services.asr.recognizer import Task, Window
from services.common.audio import FloatArray
from services.common.errors import DeviceError
from services.common.models import ModelError
from services.common.onnx_session import ERRORS
from services.common.timeline import samples
from services.common.words import text_of
from tests.asr.conftest import FRAMING
from tests.asr.engines.hearing import alone, part
from tests.asr.engines.toy import SHAPE, toy_checkpoint, without

Models = Callable[[str], Path]


def load_onnx(folder: Path) -> OnnxWhisper:
    return OnnxWhisper(folder, workers=1, threads=1, framing=FRAMING)


@pytest.fixture(scope="module")
def toy(models: Models) -> Checkpoint:
    return toy_checkpoint(models("tiny.en") / "tokenizer.json")


# --- the same numbers as others


@pytest.fixture(scope="module")
def plain(models: Models) -> Checkpoint:
    """The weights of tiny.en."""
    return load(models("tiny.en"))


def test_the_decoder_says_what_transformers_says_but_for_int8(
    plain: Checkpoint, onnx_tiny: OnnxWhisper, two_cities: FloatArray
) -> None:
    """In passes of any size, for rows that stand at different positions."""
    model = build(plain, device="cpu", dtype=torch.float32)
    decoder = onnx_tiny._decoder
    heard = [onnx_tiny._states(part(two_cities, first, first + 5)) for first in (0, 9)]
    rows = [list(onnx_tiny.encode_text(" It was the best of times, it was the worst of times"))]
    rows.append(rows[0][3:])
    text = decoder.hear(heard)
    states, scores = decoder.say([rows[0][:6], rows[1][:2]], [0, 0], text)
    found = [[decoder.logits(states[0])], [decoder.logits(states[1, :2])]]
    states, _ = decoder.say([rows[0][6:], rows[1][2:]], [6, 2], text)
    assert scores.shape == (2, len(plain.alignment_heads), 6, len(heard[0]))
    found[0].append(decoder.logits(states[0, : len(rows[0]) - 6]))
    found[1].append(decoder.logits(states[1, : len(rows[1]) - 2]))
    for row, sound, said in zip(rows, heard, found, strict=True):
        with torch.inference_mode():
            logits = model(
                decoder_input_ids=torch.tensor([row]),
                encoder_outputs=(torch.from_numpy(sound)[None],),
            ).logits[0]
        mine = np.concatenate(said)
        apart = np.abs(mine - logits.numpy())
        # The kernels of CPUs differ in how they round.
        assert apart.mean() < 0.2, "of logits that span 30"
        assert (mine.argmax(-1) == logits.numpy().argmax(-1)).mean() > 0.8


def test_attention_is_that_of_the_alignment_heads(
    plain: Checkpoint, onnx_tiny: OnnxWhisper, beckett: FloatArray
) -> None:
    model = build(plain, device="cpu", dtype=torch.float32)
    model.set_attn_implementation("eager")
    states = onnx_tiny._states(part(beckett, 0, 6))
    ids = [50257, 50362, *onnx_tiny.encode_text(" Ever tried, ever failed.")]
    text = onnx_tiny._decoder.hear([states])
    _, scores = onnx_tiny._decoder.say([ids], [0], text)
    with torch.inference_mode():
        looked = model(
            decoder_input_ids=torch.tensor([ids]),
            encoder_outputs=(torch.from_numpy(states)[None],),
            output_attentions=True,
        ).cross_attentions
    weights = torch.from_numpy(scores[0]).softmax(-1)
    for index, (layer, head) in enumerate(plain.alignment_heads):
        assert (weights[index] - looked[layer][0, head]).abs().sum(-1).mean() < 0.1


@pytest.mark.parametrize("width", [64, 48])
def test_widths_that_no_large_block_divides_are_quantized_in_smaller_ones(width: int) -> None:
    shape = replace(SHAPE, n_text_state=width, n_text_layer=1)
    numbers = np.random.default_rng(0)
    name = "model.decoder.layers.0.encoder_attn"
    weights = {
        f"{name}.{part}.weight": numbers.normal(size=(width, width)).astype(np.float32)
        for part in ("k_proj", "v_proj")
    }
    session = onnxruntime.InferenceSession(
        sound_graph(Checkpoint(shape, weights, Path(), ((0, 0),))),
        providers=["CPUExecutionProvider"],
    )
    heard = numbers.normal(size=(1, 9, width)).astype(np.float32)
    [values] = session.run(["sound_values_0"], {"states": heard})
    expected = (heard @ weights[f"{name}.v_proj.weight"].T).reshape(9, 4, width // 4)
    apart = np.abs(values[0] - expected.transpose(1, 0, 2))
    assert apart.mean() < 0.01 * np.abs(expected).mean()


def test_the_probability_of_no_speech_is_read_where_the_text_starts(
    plain: Checkpoint, onnx_tiny: OnnxWhisper, beckett: FloatArray
) -> None:
    """P20: behind a prompt, that is not the first position."""
    model = build(plain, device="cpu", dtype=torch.float32)
    silence = np.zeros(samples(5), np.float32)
    for prompt in ((), onnx_tiny.encode_text(" They went on and did not stop.")):
        before = [50360, *prompt] if prompt else []
        for window in (part(beckett, 0, 5, prompt=prompt), Window(silence, 0, prompt=prompt)):
            states = torch.from_numpy(onnx_tiny._states(window))[None]
            ids = torch.tensor([[*before, 50257]])
            with torch.inference_mode():
                logits = model(decoder_input_ids=ids, encoder_outputs=(states,)).logits
            expected = float(logits[0, -1].softmax(-1)[50361])
            found = alone(onnx_tiny, window).no_speech_probability
            assert found == pytest.approx(expected, abs=0.05)


# --- what it may say


def test_a_prompt_teaches_how_to_write(onnx_tiny: OnnxWhisper, beckett: FloatArray) -> None:
    prompt = onnx_tiny.encode_text(" no capitals and no full stops here" * 3)
    plain, taught = (alone(onnx_tiny, part(beckett, 0, 9, prompt=p)) for p in ((), prompt))
    assert text_of(taught.words) != text_of(plain.words)
    assert "fail" in text_of(taught.words).lower()


def test_only_text_is_said_and_no_more_than_there_are_positions_for(
    toy: Checkpoint, onnx_tiny: OnnxWhisper
) -> None:
    """Random weights never end a text by themselves."""
    tokens = WhisperTokens(toy.tokenizer, multilingual=False)
    decoder = Decoder(toy, threads=1)
    numbers = np.random.default_rng(3)
    noise = numbers.normal(0, 0.1, samples(30)).astype(np.float32)
    windows = [
        Window(noise, 0, prompt=tuple(range(1000, 1223))),
        Window(noise, 1, temperature=2.0),
        Window(noise, 2, prompt=(5,)),
    ]
    rows: list[Row] = [row_of(window, "en", tokens) for window in windows]
    heard = [numbers.normal(size=(n, 64)).astype(np.float32) for n in (500, 40, 300)]
    decode(decoder, vocabulary_of(tokens, SHAPE.n_vocab), rows, decoder.hear(heard))
    assert len(rows[0].start) == 226
    assert len(rows[0].tokens) == 448 - 226
    for row in rows:
        assert len(row.tokens) > 100
        assert max(row.tokens) < tokens.eot
        assert not set(row.tokens) & set(tokens.unspoken())
        assert row.tokens[0] != 220


# --- chance


def test_a_token_is_drawn_as_often_as_it_is_probable() -> None:
    logits = np.array([-np.inf, 0.0, 1.0, -np.inf], np.float32)
    row: Row = Row([], 0, [], 1, 1, temperature=0.5, chance=np.random.default_rng(0))
    drawn = np.array([_draw(logits, row) for _ in range(4000)])
    assert set(drawn) == {1, 2}
    # e^(1/0.5) : 1
    assert (drawn == 2).mean() == pytest.approx(0.881, abs=0.02)


# --- languages


def test_a_model_of_one_language_says_so(onnx_tiny: OnnxWhisper, beckett: FloatArray) -> None:
    assert onnx_tiny.language_codes == ("en",)
    assert onnx_tiny.tasks == (Task.TRANSCRIBE,)
    assert onnx_tiny.engine == "onnx/cpu/int8"
    assert alone(onnx_tiny, part(beckett, 0, 4)).language_probability == 1.0


# --- loading


WITHOUT_TORCH = """
import sys
from pathlib import Path

import numpy as np

from services.asr.config import Settings
from services.asr.engines.choice import load_engine
from services.asr.recognizer import Window

for name in ("torch", "transformers", "safetensors"):
    assert name not in sys.modules, f"{name} was imported"
    sys.modules[name] = None
model = load_engine(Settings(model=sys.argv[1]), workers=1, threads=1)
model.recognize([Window(np.zeros(16_000, np.float32), 0)])
print(model.engine)
"""


@pytest.mark.parametrize("blocked", [True, False])
def test_it_needs_no_torch(blocked: bool, models: Models) -> None:
    """It neither needs it, nor imports it where it is installed."""
    code = WITHOUT_TORCH
    if not blocked:
        code = code.replace("    sys.modules[name] = None\n", "")
        code += "assert not {'torch', 'transformers', 'safetensors'} & sys.modules.keys()\n"
    ran = subprocess.run(
        [sys.executable, "-c", code, models("tiny.en")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "onnx/cpu/int8\n", "")


@pytest.mark.parametrize(("workers", "threads", "cores"), [(1, 1, 1), (4, 1, 1), (2, 3, 5)])
def test_workers_share_the_threads_that_help_them(
    workers: int, threads: int, cores: int, models: Models
) -> None:
    model = OnnxWhisper(models("tiny.en"), workers=workers, threads=threads, framing=FRAMING)
    assert model._decoder._text.get_session_options().intra_op_num_threads == cores
    assert alone(model, Window(np.zeros(samples(1), np.float32), 0)).language_code == "en"


def damaged(how: str, source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder, symlinks=False)
    model, tokenizer = folder / "model.bin", folder / "tokenizer.json"
    match how:
        case "no model":
            model.unlink()
        case "half a model":
            model.write_bytes(model.read_bytes()[:1_000_000])
        case "no tokenizer":
            tokenizer.write_text("no JSON")
        case "another tokenizer":
            text = tokenizer.read_text()
            tokenizer.write_text(text.replace("<|endoftext|>", "<|theend|>"))
        case "no configuration":
            (folder / "config.json").write_text("no JSON")
    return folder


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ("no model", r"has no model\.bin"),
        ("half a model", r"model\.bin is damaged"),
        ("no tokenizer", r"tokenizer\.json cannot be read"),
        ("another tokenizer", "no Whisper model"),
        ("no configuration", r"config\.json cannot be read"),
    ],
)
def test_what_is_no_model_says_why(
    how: str, complaint: str, models: Models, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=complaint):
        load_onnx(damaged(how, models("tiny.en"), tmp_path / "model"))


@pytest.mark.parametrize(
    "name",
    [
        "model.decoder.layer_norm.bias",
        "model.decoder.layers.1.fc1.weight",
        "model.decoder.layers.0.encoder_attn.k_proj.weight",
    ],
)
def test_weights_that_lack_something_make_no_decoder(name: str, toy: Checkpoint) -> None:
    with pytest.raises(ModelError, match=f"no {name}"):
        Decoder(without(toy, name), threads=1)


def test_weights_of_another_shape_are_refused(toy: Checkpoint) -> None:
    name = "model.decoder.layers.0.fc1.weight"
    odd = replace(toy, tensors=toy.tensors | {name: np.zeros((256, 40), np.float32)})
    with pytest.raises(ModelError, match="takes 40 numbers: no multiple of 16"):
        Decoder(odd, threads=1)
    wide = replace(toy, tensors=toy.tensors | {name: np.zeros((256, 80), np.float32)})
    with pytest.raises(DeviceError, match="does not take the model"):
        decoder = Decoder(wide, threads=1)
        decoder.say([[1]], [0], decoder.hear([np.zeros((5, 64), np.float32)]))


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(toy: Checkpoint) -> None:
    tokens = WhisperTokens(toy.tokenizer, multilingual=False)
    with pytest.raises(ModelError, match="more tokens than the model, which has 50000"):
        vocabulary_of(tokens, 50_000)


@pytest.mark.parametrize("error", [*ERRORS, RuntimeError], ids=lambda e: e.__name__)
def test_whatever_fails_at_work_is_a_device_error(
    error: type[Exception], onnx_tiny: OnnxWhisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error("no memory is left")

    monkeypatch.setattr(onnx_tiny._decoder, "say", fail)
    with pytest.raises(DeviceError, match="no memory is left"):
        onnx_tiny.recognize([Window(np.zeros(16_000, np.float32), 0)])


def test_what_the_runtime_refuses_is_a_device_error(onnx_tiny: OnnxWhisper) -> None:
    """Not a RuntimeError, but one of its own."""
    text = onnx_tiny._decoder.hear([np.zeros((5, 384), np.float32)])
    del text.feeds["sound_mask"]
    assert len(ERRORS) > 5
    with pytest.raises((*ERRORS, ValueError)):
        onnx_tiny._decoder.say([[1]], [0], text)
