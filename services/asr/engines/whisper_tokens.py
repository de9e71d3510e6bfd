"""Whisper's tokens: what starts a text, what must not be said, how tokens make words.

Sources: openai/whisper, ``tokenizer.py``; Radford et al., "Robust Speech Recognition via
Large-Scale Weak Supervision", 2022.
"""

import string
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from services.asr.engines.whisper_window import MAX_PROMPT_TOKENS
from services.asr.recognizer import Task
from services.common.models import ModelError

_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Languages that are written without spaces: each character may be a word."""
_LONGEST_TOKEN = 128
"""Characters of the longest token: a rule of dashes."""
_MAX_PROMPT_CHARACTERS = MAX_PROMPT_TOKENS * _LONGEST_TOKEN
"""What lies further back has no part in a prompt; megabytes of it would take seconds."""
_PART = "\ufffd"
"""What a character becomes of which there are not all bytes."""
# Marks that stand for no speech: speaker tags, notes, brackets.
_MARKS = (
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    *("<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))"),
    *("[[", "]]", "{{", "}}", "♪♪", "♪♪♪"),
)
_MUSIC = "♩♪♫♬♭♮♯"
"""These may be several tokens; the first one stands for nothing else that is spoken."""


class WhisperTokens:
    """The tokens of one model."""

    def __init__(self, path: Path, *, multilingual: bool) -> None:
        """Read a tokenizer.

        Args:
            path: Its ``tokenizer.json``.
            multilingual: The model has tokens for languages and tasks.

        Raises:
            ModelError: It is not a Whisper model's.

        """
        try:
            self._text = Tokenizer.from_file(str(path))
        except Exception as error:
            raise ModelError(f"{path} cannot be read: {error}") from error
        self._multilingual = multilingual
        self.eot = self._token("<|endoftext|>")
        """Ends a text; the tokens of text are those below it."""
        self.sot = self._token("<|startoftranscript|>")
        self.no_speech = self._token("<|nospeech|>", "<|nocaptions|>")
        self._sot_prev = self._token("<|startofprev|>")
        self._no_timestamps = self._token("<|notimestamps|>")
        self.languages = self._languages() if multilingual else {}
        """The token of each language; none in a model of one."""
        self.language_codes: tuple[str, ...] = tuple(self.languages) or ("en",)
        self.tasks: tuple[Task, ...] = (
            (Task.TRANSCRIBE, Task.TRANSLATE) if multilingual else (Task.TRANSCRIBE,)
        )

    def start(self, language_code: str, task: Task) -> list[int]:
        """What goes before a text without times."""
        if not self._multilingual:
            return [self.sot, self._no_timestamps]
        told = self._token(f"<|{task.value}|>")
        return [self.sot, self.languages[language_code], told, self._no_timestamps]

    def prompt(self, tokens: Sequence[int]) -> list[int]:
        """What goes before the start: a text that could stand before, if there is one."""
        known = [token for token in tokens if 0 <= token < self.eot][-MAX_PROMPT_TOKENS:]
        return [self._sot_prev, *known] if known else []

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Token ids of a text: the last of them, if there are too many."""
        return tuple(self._encode(text[-_MAX_PROMPT_CHARACTERS:])[-MAX_PROMPT_TOKENS:])

    def unspoken(self) -> tuple[int, ...]:
        """Tokens of text that stand for no speech: OpenAI's list."""
        # Hyphens and quotes are written between words, but do not start one.
        found = {self._encode(" -")[0], self._encode(" '")[0]}
        for mark in (*_MARKS, *_MUSIC):
            for text in (mark, f" {mark}"):
                tokens = self._encode(text)
                if len(tokens) == 1 or mark in _MUSIC:
                    found.add(tokens[0])
        return tuple(sorted(found))

    def blank(self) -> tuple[int, ...]:
        """What no text starts with: a space alone, and its end."""
        return (*self._encode(" "), self.eot)

    def split(self, tokens: Sequence[int], language_code: str) -> list[tuple[str, int]]:
        """Tokens of text as words, each with the index after its last token.

        A character whose bytes are not all there is a word of its own, or part of one, and
        contains U+FFFD.
        """
        pieces = self._characters(tokens)
        if language_code in _WITHOUT_SPACES:
            return pieces
        words: list[tuple[str, int]] = []
        for text, after in pieces:
            apart = text.startswith(" ") or text.strip() in string.punctuation
            if words and not apart:
                words[-1] = words[-1][0] + text, after
            else:
                words.append((text, after))
        return words

    def _characters(self, tokens: Sequence[int]) -> list[tuple[str, int]]:
        """The shortest runs of tokens that are whole characters."""
        whole: str = self._text.decode(list(tokens))
        pieces: list[tuple[str, int]] = []
        begin, position = 0, 0
        for after in range(1, len(tokens) + 1):
            text: str = self._text.decode(list(tokens[begin:after]))
            part = text.find(_PART)
            # It may be meant: then it is in the text as a whole as well.
            if part < 0 or whole[position + part : position + part + 1] == _PART:
                pieces.append((text, after))
                begin, position = after, position + len(text)
        return pieces

    def _encode(self, text: str) -> list[int]:
        found: list[int] = self._text.encode(text, add_special_tokens=False).ids
        return found

    def _languages(self) -> dict[str, int]:
        """The languages that have a token: those between start-of-transcript and the tasks."""
        tokens = range(self.sot + 1, self._token("<|translate|>"))
        return {str(self._text.id_to_token(token)).strip("<|>"): token for token in tokens}

    def _token(self, *names: str) -> int:
        for name in names:
            if (token := self._text.token_to_id(name)) is not None:
                return int(token)
        raise ModelError(f"the tokenizer has no {names[0]}: no Whisper model")
