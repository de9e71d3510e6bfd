"""Writes the corpus: ``python -m tests.robustness.make_corpus``.

Each entry once broke something, or takes a branch that random input seldom finds; it is named
after what it is. ``test_corpus.py`` has the answer that each of them gets.
"""

import json
import math
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from services.asr import checkpoint as asr_checkpoint
from services.asr.checkpoint import State
from services.common.words import Word
from services.diarizer import checkpoint as diarizer_checkpoint
from services.diarizer.engines.online_memory import OnlineMemory
from services.diarizer.engines.voices import Voice
from services.translator import checkpoint as translator_checkpoint
from services.translator.draft import Draft
from services.translator.policies.policy import Hypothesis
from services.vad import checkpoint as vad_checkpoint
from services.vad.endpointer import EndpointerState

FOLDER = Path(__file__).parent / "corpus"

MEMORY_SIZE = 1
"""What the detector remembers whose checkpoints these are."""
VOICE_SIZE = 4
"""Numbers in a voice of the diarizer whose checkpoints these are."""
_HEARD = EndpointerState(512, 0)
_SAID = State(0, 512, 0, (Word(" a", 0, 512, 0.5, (1,)),), (), (), "en")


def corpus() -> dict[str, bytes]:
    """The files, by their paths."""
    return {
        **{f"recordings/{name}": data for name, data in _recordings().items()},
        **{f"forms/{name}": data for name, data in _forms().items()},
        **{f"texts/{name}": text.encode() for name, text in _TEXTS.items()},
        **{f"keys/{name}": data for name, data in _KEYS.items()},
        **{f"checkpoints/asr/{name}": data for name, data in _asr_checkpoints().items()},
        **{f"checkpoints/vad/{name}": data for name, data in _vad_checkpoints().items()},
        **{f"checkpoints/diarizer/{name}": data for name, data in _diarizer_checkpoints().items()},
        **{
            f"checkpoints/translator/{name}": data
            for name, data in _translator_checkpoints().items()
        },
    }


def _recordings() -> dict[str, bytes]:
    pcm = bytes(3200)
    wav = _wav()
    title = b"INFOISFT" + struct.pack("<I", 0x7FFFFF00) + b"me"
    return {
        "comment-of-two-gigabytes.wav": _wav(_chunk(b"LIST", title, 0x7FFFFFFF)) + pcm,
        "comment-before-the-samples.wav": _wav(_chunk(b"LIST", b"INFOISFT\4\0\0\0mine")) + pcm,
        "format-of-a-gigabyte.wav": wav[:16] + struct.pack("<I", 1 << 30) + wav[20:] + pcm,
        "hours-by-its-own-word.wav": _wav(data_bytes=0x7FFE0000) + pcm,
        "no-samples.wav": wav,
        "one-sample-a-second.wav": _wav(rate_hz=1) + pcm,
        "no-channels.wav": _wav(channels=0) + pcm,
        "chunk-longer-than-the-file.wav": b"RIFF\x14\0\0\0WAVEJUNK\xff\0\0\0" + pcm,
        "tags-and-nothing-else.mp3": b"ID3\4\0\0\0\0\0\0" * 300,
        "tag-of-256-megabytes.mp3": b"ID3\4\0\0\x7f\x7f\x7f\x7f" + bytes(100),
        "playlist-behind-a-tag.mp3": b"ID3\4\0\0\0\0\0\4abcd#EXTM3U\nfile:///etc/passwd\n",
        "element-of-an-exabyte.webm": b"\x1a\x45\xdf\xa3\x01\x7f" + b"\xff" * 6 + bytes(100),
        "box-of-an-exabyte.m4a": b"\0\0\0\1ftyp\x0f" + b"\xff" * 7 + b"M4A " + bytes(100),
        "boxes-and-nothing-else.m4a": b"\0\0\0\x08ftyp" + b"\0\0\0\x08free" * 200,
        "index-of-a-gigabyte.m4a": b"\0\0\0\x10ftypM4A \0\0\0\0\x40\0\0\0moov" + bytes(100),
        "header-of-16-megabytes.flac": b"fLaC\x04\xff\xff\xff" + bytes(100),
        "title-of-two-gigabytes.aiff": b"FORM\0\0\1\0AIFFNAME\x7f\xff\xff\xf0" + bytes(100),
        "chunk-of-an-exabyte.caf": b"caff\0\1\0\0kuki\x0f" + b"\xff" * 7 + bytes(100),
        "page-cut-off.ogg": b"OggS\0\2" + bytes(20) + b"\x01\x13OpusHead\1\1",
        "header-of-four-gigabytes.au": b".snd\xff\xff\xff\xff" + bytes(100),
    }


def _wav(*chunks: bytes, data_bytes: int = 3200, rate_hz: int = 16_000, channels: int = 1) -> bytes:
    fmt = struct.pack("<HHIIHH", 1, channels, rate_hz, 2 * rate_hz, 2, 16)
    data = b"data" + struct.pack("<I", data_bytes)
    return b"RIFF\xff\xff\xff\xffWAVE" + _chunk(b"fmt ", fmt) + b"".join(chunks) + data


def _chunk(name: bytes, body: bytes, claimed: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if claimed is None else claimed) + body


def _forms() -> dict[str, bytes]:
    """A line with the content type, then the body."""
    kind = "multipart/form-data; boundary=B"
    return {
        "whole.form": _form(kind, model=b"whisper-1"),
        "list-nested-too-deep.form": _form(kind, timestamp_granularities=b"[" * 2000),
        "temperature-is-no-number.form": _form(kind, temperature=b"nan"),
        "charset-that-decodes-nothing.form": _form(f"{kind}; charset=undefined"),
        "charset-with-lone-surrogates.form": _form(
            f"{kind}; charset=unicode_escape", prompt=rb"\ud800"
        ),
        "ends-in-the-file.form": _form(kind)[:-20],
        "field-without-name.form": _form(kind).replace(b'; name="file"', b""),
        "no-boundary.form": _form("multipart/form-data"),
        "another-boundary.form": _form("multipart/form-data; boundary=C"),
    }


def _form(kind: str, **fields: bytes) -> bytes:
    parts = [
        f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value
        for name, value in fields.items()
    ]
    file = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    body = b"\r\n".join([*parts, file + _wav() + bytes(3200), b"--B--\r\n"])
    return kind.encode() + b"\n" + body


_TEXTS = {
    "nested-too-deep.json": "[" * 2000,
    "lone-surrogate.json": r'{"open": {"prompt": "\ud800"}}',
    "lone-surrogate-for-a-name.json": r'{"open": {"\ud800": 1}}',
    "lone-surrogate-for-audio.json": r'{"audio": "\ud800"}',
    "two-payloads.json": '{"open": {}, "finish": {}}',
    "number-beyond-all.json": '{"open": {"channels": 1e999}}',
    "five-thousand-digits.json": '{"resume": {"num_words": ' + "9" * 5000 + "}}",
    "nothing.json": "null",
}

_KEYS = {
    "key-itself.keys": b"alice secret\n",
    "named-twice.keys": b"alice " + b"0" * 64 + b"\nalice " + b"1" * 64 + b"\n",
    "hash-cut-off.keys": b"alice " + b"0" * 63,
    "no-utf-8.keys": b"j\xfcrgen " + b"0" * 64,
}


def _asr_checkpoints() -> dict[str, bytes]:
    whole = asr_checkpoint.encode(_SAID)
    far = Word(" a", 0, 1 << 70)
    unwritable = json.loads(whole[4:])
    unwritable["committed"][0]["text"] = "\ud800"
    return {
        "whole": whole,
        "cut-off": whole[:-1],
        "of-the-vad": _vad_checkpoints()["whole"],
        "word-beyond-the-clock": asr_checkpoint.encode(replace(_SAID, committed=(far,))),
        "word-of-a-lone-surrogate": _sealed(json.dumps(unwritable).encode()),
        "nested-too-deep": _sealed(b"[" * 2000),
    }


def _sealed(text: bytes) -> bytes:
    return struct.pack("<I", zlib.crc32(text)) + text


def _vad_checkpoints() -> dict[str, bytes]:
    def encoded(state: EndpointerState) -> bytes:
        return vad_checkpoint.encode(state, np.zeros(MEMORY_SIZE, np.float32))

    return {
        "whole": encoded(_HEARD),
        "cut-off": encoded(_HEARD)[:-1],
        "of-the-recogniser": asr_checkpoint.encode(_SAID),
        "speech-that-never-started": encoded(replace(_HEARD, speaking=True)),
        "speech-that-never-ends": encoded(
            replace(_HEARD, speaking=True, start_sample=0, end_sample=1 << 60)
        ),
        "probability-is-no-number": encoded(replace(_HEARD, probability=float("nan"))),
    }


def _diarizer_checkpoints() -> dict[str, bytes]:
    known = OnlineMemory(_voices(1.0), 8000, 2, np.ones((2, 1), np.bool_))

    def encoded(memory: OnlineMemory, first: int = 0, end: int = 16_000) -> bytes:
        return diarizer_checkpoint.encode(diarizer_checkpoint.State(first, end, memory))

    return {
        "whole": encoded(known),
        "cut-off": encoded(known)[:-1],
        "of-the-vad": _vad_checkpoints()["whole"],
        "decided-before-it-was-heard": encoded(replace(known, settled_sample=16_001)),
        "ends-before-it-begins": encoded(known, first=16_001),
        "audio-of-an-hour": encoded(known, end=3600 * 16_000),
        "voice-is-no-number": encoded(replace(known, voices=_voices(float("nan")))),
        "voice-of-another-model": encoded(replace(known, voices=_voices(1.0, VOICE_SIZE + 1))),
        "frames-from-before-the-start": encoded(replace(known, settled_frame=1)),
    }


def _voices(total: float, size: int = VOICE_SIZE) -> tuple[Voice, ...]:
    return (Voice(np.full(size, total, np.float32), 1.0),)


def _translator_checkpoints() -> dict[str, bytes]:
    words = (Word(" a", 0, 512), Word(" b", 512, 1024))
    draft = Draft(words, 1, (" A",), (Hypothesis(2, (" A", " B"), (0, 1)),))

    def encoded(draft: Draft) -> bytes:
        return translator_checkpoint.encode(translator_checkpoint.State(draft, 1024))

    def said(text: str) -> Draft:
        return replace(draft, words=(words[0], replace(words[1], text=text)))

    return {
        "whole": encoded(draft),
        "cut-off": encoded(draft)[:-1],
        "of-the-recogniser": _asr_checkpoints()["whole"],
        "word-beyond-the-clock": encoded(
            replace(draft, words=(words[0], Word(" b", 512, 1 << 70)))
        ),
        "word-of-a-lone-surrogate": encoded(said("\ud800")),
        "word-without-text": encoded(said("")),
        "words-covered-of-which-none-waits": encoded(replace(draft, num_covered=2)),
        "words-that-end-together": encoded(replace(draft, words=(words[0], words[0]))),
        "number-beyond-all": encoded(replace(draft, num_covered=math.inf)),  # type: ignore[arg-type]
        "nested-too-deep": _sealed(b"[" * 2000),
    }


def main() -> None:
    """Write every file."""
    for name, data in corpus().items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
