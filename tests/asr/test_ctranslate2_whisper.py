"""Whisper itself, on people who read aloud."""

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from services.asr.engines import ctranslate2_whisper as engine
from services.asr.engines.ctranslate2_whisper import CTranslate2Whisper
from services.asr.engines.whisper_window import max_tokens
from services.asr.guards import Verdict, judge
from services.asr.policies.normal_form import normal_form
from services.asr.recognizer import Hypothesis, Task, Window
from services.common.audio import FloatArray
from services.common.errors import DeviceError
from services.common.models import ModelError
from services.common.timeline import SAMPLE_RATE_HZ, samples
from services.common.words import Word, text_of
from tests.asr.conftest import FRAMING, load

READ = "Ever tried, ever failed. No matter, try again. Fail again. Fail better."
"""The first nine seconds of beckett.wav."""


SILENCE = np.zeros(samples(30), np.float32)


def part(audio: FloatArray, first_s: float, end_s: float, **how: object) -> Window:
    first, end = samples(first_s), samples(end_s)
    return Window(audio[first:end], first, **how)  # type: ignore[arg-type]


def said(model: CTranslate2Whisper, window: Window) -> str:
    [heard] = model.recognize([window])
    return text_of(heard.words).strip()


def test_it_writes_down_what_is_read(tiny: CTranslate2Whisper, beckett: FloatArray) -> None:
    [heard] = tiny.recognize([part(beckett, 0, 9)])
    # Whether two sentences are one is a near tie, which CPUs decide by how they round.
    words = text_of(heard.words).split()
    assert [normal_form(word) for word in words] == [normal_form(word) for word in READ.split()]
    assert (heard.language_code, heard.language_probability) == ("en", 1.0)
    assert heard.no_speech_probability < 0.3
    assert -0.5 < heard.avg_log_probability < 0
    assert judge(heard, samples(9)) is Verdict.SOUND
    assert tiny.encode_text(text_of(heard.words)) == tuple(
        token for word in heard.words for token in word.token_ids
    )


@pytest.mark.parametrize("first_sample", [0, 3 * 3600 * SAMPLE_RATE_HZ + 7])
def test_words_lie_in_order_inside_their_window(
    first_sample: int, tiny: CTranslate2Whisper, two_cities: FloatArray
) -> None:
    window = Window(two_cities[: samples(14.33)], first_sample)
    [heard] = tiny.recognize([window])
    assert len(heard.words) > 25
    assert heard.words[0].first_sample >= first_sample
    for one, other in pairwise(heard.words):
        assert one.first_sample < one.end_sample
        assert one.first_sample <= other.first_sample
        assert one.end_sample <= other.first_sample + 1
    assert heard.words[-1].end_sample <= first_sample + len(window.samples)
    assert all(0 < word.probability <= 1 for word in heard.words)
    [moved] = tiny.recognize([Window(window.samples, 0)])
    assert [word.first_sample + first_sample for word in moved.words] == [
        word.first_sample for word in heard.words
    ]


def test_words_behind_a_pause_start_where_it_is_loud_again(
    tiny: CTranslate2Whisper, beckett: FloatArray
) -> None:
    [heard] = tiny.recognize([part(beckett, 0, 9)])
    starts = {2: 1.9, 4: 3.5, 6: 4.9, 8: 6.6, 10: 8.1}
    for index, loud_s in starts.items():
        assert abs(heard.words[index].first_sample - samples(loud_s)) < samples(0.4)


def test_a_batch_says_what_each_of_its_windows_says_alone(
    tiny: CTranslate2Whisper, two_cities: FloatArray
) -> None:
    """Also where windows of other lengths share its encoder positions."""
    lengths = [4.1, 4.5, 4.99, 5.0, 4.2, 4.7]
    windows = [part(two_cities, n * 5, n * 5 + length) for n, length in enumerate(lengths)]
    assert len({tiny.bucket(window) for window in windows}) == 1
    together = tiny.recognize(windows)
    alone = [tiny.recognize([window])[0] for window in windows]
    assert len({text_of(heard.words) for heard in alone}) == len(windows)
    for one, other in zip(together, alone, strict=True):
        assert texts_and_times(one) == texts_and_times(other)
        assert one.avg_log_probability == pytest.approx(other.avg_log_probability, abs=0.02)


@pytest.mark.parametrize("prompt", ["", " in short," * 9])
def test_a_loop_ends_at_the_same_token_in_every_batch(
    prompt: str, tiny: CTranslate2Whisper, two_cities: FloatArray
) -> None:
    tokens = tiny.encode_text(prompt) if prompt else ()
    short = part(two_cities, 25, 29.7, prompt=tokens)
    longer = part(two_cities, 0, 5, prompt=tokens)
    [alone] = tiny.recognize([short])
    beside, _ = tiny.recognize([short, longer])
    assert len(alone.words) >= 40, "it is a loop"
    assert texts_and_times(beside) == texts_and_times(alone)
    assert sum(len(word.token_ids) for word in alone.words) == max_tokens(short)


def texts_and_times(heard: Hypothesis) -> list[tuple[str, int, int]]:
    return [(word.text, word.first_sample, word.end_sample) for word in heard.words]


def test_a_row_of_silence_or_noise_changes_no_other(
    tiny: CTranslate2Whisper, beckett: FloatArray
) -> None:
    speech = part(beckett, 0, 5)
    noise = np.random.default_rng(1).normal(0, 0.1, samples(5)).astype(np.float32)
    rows = [Window(np.zeros(samples(5), np.float32), 0), speech, Window(noise, 0)]
    [alone] = tiny.recognize([speech])
    together = tiny.recognize(rows)
    assert texts_and_times(together[1]) == texts_and_times(alone)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (
            part(SILENCE, 0, 4.1),
            part(SILENCE, 9, 13.9),
            True,
        ),
        (
            part(SILENCE, 0, 4.1),
            part(SILENCE, 0, 5.1),
            False,
        ),
        (
            part(SILENCE, 0, 28, language_code="de"),
            part(SILENCE, 0, 30, task=Task.TRANSLATE),
            True,
        ),
        (
            part(SILENCE, 0, 4, prompt=(1, 2)),
            part(SILENCE, 0, 4, prompt=(3, 4)),
            True,
        ),
        (
            part(SILENCE, 0, 4, prompt=(1, 2)),
            part(SILENCE, 0, 4),
            False,
        ),
        (
            part(SILENCE, 0, 4, temperature=0.4),
            part(SILENCE, 0, 4),
            False,
        ),
    ],
)
def test_windows_share_a_batch_if_they_are_decoded_alike(
    one: Window, other: Window, equal: bool, tiny: CTranslate2Whisper
) -> None:
    assert (tiny.bucket(one) == tiny.bucket(other)) is equal


def test_a_prompt_teaches_how_to_write(tiny: CTranslate2Whisper, beckett: FloatArray) -> None:
    plain = part(beckett, 0, 9)
    prompt = tiny.encode_text(" no capitals and no full stops here" * 3)
    [taught] = tiny.recognize([part(beckett, 0, 9, prompt=prompt)])
    [heard] = tiny.recognize([plain])
    assert text_of(taught.words) != text_of(heard.words)
    assert taught.no_speech_probability < 0.6


def test_a_prompt_of_any_length_fits(tiny: CTranslate2Whisper, beckett: FloatArray) -> None:
    text = " Some names." * 500 + " Fail better."
    prompt = tiny.encode_text(text)
    assert len(prompt) == 223
    assert prompt == tiny.encode_text(" and before" + text), "the end of it counts"
    assert "fail" in said(tiny, part(beckett, 0, 9, prompt=prompt)).lower()
    loud = np.tile(beckett[: samples(9)], 4)[: samples(30)]
    assert "fail" in said(tiny, Window(loud, 0, prompt=prompt)).lower()


def test_a_temperature_makes_no_nonsense_of_it(
    tiny: CTranslate2Whisper, beckett: FloatArray
) -> None:
    assert "ever" in said(tiny, part(beckett, 0, 9, temperature=0.4)).lower()


NOTHING = [
    pytest.param(np.zeros(samples(5), np.float32), id="silence"),
    pytest.param(
        np.random.default_rng(0).normal(0, 0.05, samples(5)).astype(np.float32), id="noise"
    ),
    pytest.param(np.full(samples(5), 1, np.float32), id="a stuck microphone"),
]


@pytest.mark.parametrize("audio", NOTHING)
def test_where_nobody_speaks_nothing_is_believed(
    audio: FloatArray, tiny: CTranslate2Whisper
) -> None:
    [heard] = tiny.recognize([Window(audio, 0)])
    assert not heard.words or judge(heard, len(audio)) is Verdict.NO_SPEECH


@pytest.mark.parametrize("num_samples", [1, 159, 160, 480, 1600, 480_000])
def test_windows_of_any_length_are_decoded(
    num_samples: int, tiny: CTranslate2Whisper, two_cities: FloatArray
) -> None:
    [heard] = tiny.recognize([Window(two_cities[8000 : 8000 + num_samples], 5)])
    assert isinstance(heard, Hypothesis)
    assert all(5 <= word.first_sample < 5 + num_samples for word in heard.words)


def test_a_model_of_one_language_says_so(tiny: CTranslate2Whisper) -> None:
    assert tiny.language_codes == ("en",)
    assert tiny.tasks == (Task.TRANSCRIBE,)
    assert tiny.engine.startswith("ctranslate2/cpu/int8")


def test_the_language_is_detected_unless_it_is_named(
    base: CTranslate2Whisper, two_cities: FloatArray
) -> None:
    assert base.tasks == (Task.TRANSCRIBE, Task.TRANSLATE)
    assert {"en", "de", "ja", "yue"} & set(base.language_codes) >= {"en", "de", "ja"}
    codes = ["", "de", "en", "", "fr"]
    windows = [part(two_cities, 0, 6, language_code=code) for code in codes]
    together = base.recognize(windows)
    assert [heard.language_code for heard in together] == ["en", "de", "en", "en", "fr"]
    assert [heard.language_probability for heard in together][1:3] == [1.0, 1.0]
    assert 0.5 < together[0].language_probability < 1
    texts = [text_of(heard.words) for heard in together]
    assert texts[0] == texts[2] == texts[3]
    assert len(set(texts)) == 3
    assert texts[1] == text_of(base.recognize([windows[1]])[0].words), "nor do languages mix"
    assert [w.first_sample for w in together[1].words] == [
        w.first_sample for w in base.recognize([windows[1]])[0].words
    ]


@pytest.mark.parametrize(
    ("code", "text", "words"),
    [
        ("ja", "今日は鷹と鯨を", ["今日は", "鷹", "と", "鯨", "を"]),
        ("ja", "鯨です。", ["鯨", "です。"]),
        ("zh", "「鹰」，好", ["「", "鹰", "」，", "好"]),  # noqa: RUF001 -- full-width is meant
        ("en", ' He said "no", twice.', [" He", " said", ' "no",', " twice."]),
        ("de", " Straße (naß) überall!", [" Straße", " (naß)", " überall!"]),
    ],
)
def test_characters_of_several_tokens_stay_whole(
    code: str, text: str, words: list[str], base: CTranslate2Whisper
) -> None:
    found = timed(base, code, base.encode_text(text))
    assert "".join(word.text for word in found) == text
    assert [word.text for word in found if word.text.strip()] == words
    assert tuple(t for word in found for t in word.token_ids) == base.encode_text(text)


def test_half_a_character_is_no_word(base: CTranslate2Whisper) -> None:
    tokens = base.encode_text("今日は鷹")
    assert len(tokens) == 4
    for end in (2, 3):
        assert [word.text for word in timed(base, "ja", tokens[:end])] == ["今日は"]


def timed(model: CTranslate2Whisper, code: str, tokens: tuple[int, ...]) -> tuple[Word, ...]:
    """The words of tokens that were said one after the other, 0.1 s each."""
    alignment = SimpleNamespace(
        alignments=[(n, 5 * n) for n in range(len(tokens) + 1)],
        text_token_probs=[0.5] * len(tokens),
    )
    window = Window(SILENCE, 0)
    split = model._tokens.split(tokens, code)
    return engine._timed_words(window, split, tokens, alignment)


def test_a_folder_without_a_model_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no model\.bin: no Whisper model for CTranslate2"):
        load(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DeviceError, match="cannot be loaded on cpu"):
        load(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    for name in ("model.bin", "config.json", "vocabulary.txt"):
        (tmp_path / name).symlink_to(models("tiny.en") / name)
    path = tmp_path / "tokenizer.json"
    path.write_text("no JSON")
    with pytest.raises(ModelError, match="cannot be read"):
        load(tmp_path)
    shutil.copy(models("tiny.en") / "tokenizer.json", path)
    path.write_text(path.read_text().replace("<|endoftext|>", "<|theend|>"))
    with pytest.raises(ModelError, match="no Whisper model"):
        load(tmp_path)


def test_a_number_format_that_the_device_lacks_says_so(models: Callable[[str], Path]) -> None:
    with pytest.raises(DeviceError, match="compute type"):
        CTranslate2Whisper(
            models("tiny.en"),
            device="cpu",
            compute_type="int8_float16",
            workers=1,
            threads=1,
            beam_size=1,
            framing=FRAMING,
        )
