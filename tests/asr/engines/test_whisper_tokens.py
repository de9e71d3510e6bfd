import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from faster_whisper.tokenizer import Tokenizer as Reference
from tokenizers import Tokenizer

from services.asr.engines.whisper_tokens import WhisperTokens
from services.asr.recognizer import Task
from services.common.models import ModelError

Models = Callable[[str], Path]

TEXTS = [
    ("en", ' He said "no", twice. It\'s (not) a-ha! 3.5 %'),
    ("de", " Straße (naß) überall! Äpfel…"),
    ("ja", "今日は鷹と鯨を食べた。"),
    ("zh", "「鹰」，好"),  # noqa: RUF001 -- full-width is meant
    ("th", "สวัสดีครับ"),
    ("ru", " Привет, мир — и всё."),
    ("en", " 🙂 and 👩‍👩‍👧 faces"),
    ("en", " a \ufffd b"),
]


@pytest.fixture(scope="module")
def english(models: Models) -> WhisperTokens:
    return WhisperTokens(models("tiny.en") / "tokenizer.json", multilingual=False)


@pytest.fixture(scope="module")
def many(models: Models) -> WhisperTokens:
    return WhisperTokens(models("base") / "tokenizer.json", multilingual=True)


@pytest.mark.parametrize(("code", "text"), TEXTS)
def test_words_are_split_as_openai_does(
    code: str, text: str, many: WhisperTokens, models: Models
) -> None:
    tokenizer = Tokenizer.from_file(str(models("base") / "tokenizer.json"))
    reference = Reference(tokenizer, True, task="transcribe", language=code)
    tokens = list(many.encode_text(text))
    for end in range(1, len(tokens) + 1):
        texts, groups = reference.split_to_word_tokens(tokens[:end])
        found = many.split(tokens[:end], code)
        assert [word for word, _ in found] == texts
        bounds = [0, *(after for _, after in found)]
        assert [b - a for a, b in pairwise(bounds)] == [*map(len, groups)]


@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_what_stands_for_no_speech_is_openais_list(name: str, models: Models) -> None:
    tokens = WhisperTokens(models(name) / "tokenizer.json", multilingual=name == "base")
    config = json.loads((models(name) / "config.json").read_text())
    assert set(tokens.unspoken()) == {
        token for token in config["suppress_ids"] if token < tokens.eot
    }
    assert set(tokens.blank()) == set(config["suppress_ids_begin"])


def test_a_text_starts_with_what_the_model_was_trained_on(
    english: WhisperTokens, many: WhisperTokens
) -> None:
    assert english.start("en", Task.TRANSCRIBE) == [50257, 50362]
    assert many.start("de", Task.TRANSCRIBE) == [50258, 50261, 50359, 50363]
    assert many.start("en", Task.TRANSLATE) == [50258, 50259, 50358, 50363]
    assert english.tasks == (Task.TRANSCRIBE,)
    assert english.language_codes == ("en",)
    assert many.tasks == (Task.TRANSCRIBE, Task.TRANSLATE)
    assert many.language_codes[:3] == ("en", "zh", "de")
    assert len(many.language_codes) == 99


def test_a_prompt_is_text_and_no_longer_than_half_of_the_positions(
    english: WhisperTokens,
) -> None:
    assert english.prompt(()) == []
    assert english.prompt((11, 13)) == [50360, 11, 13]
    assert english.prompt((-1, 50256, 50300, 10**9)) == [], "these are no text"
    assert english.prompt(range(500)) == [50360, *range(277, 500)]


def test_of_a_long_prompt_only_the_end_is_looked_at(
    english: WhisperTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[int] = []
    encode = english._encode

    def counted(text: str) -> list[int]:
        looked_at.append(len(text))
        return encode(text)

    rule = " " + "-" * 128
    expected = english.encode_text(rule * 300)
    monkeypatch.setattr(english, "_encode", counted)
    assert english.encode_text(rule * 30_000) == expected
    assert sum(looked_at) < 30_000


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, models: Models) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ModelError, match="cannot be read"):
        WhisperTokens(path, multilingual=False)
    source = (models("tiny.en") / "tokenizer.json").read_text()
    path.write_text(source.replace("<|startofprev|>", "<|before|>"))
    with pytest.raises(ModelError, match=r"no <\|startofprev\|>: no Whisper model"):
        WhisperTokens(path, multilingual=False)
