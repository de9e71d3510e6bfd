import pytest

from services.gateway.sniff import DEMUXERS, Found, id3_bytes, sniff

MP3 = bytes.fromhex("fffb9064") + bytes(413)
"""One frame: MPEG-1 layer III, 128 kbit/s, 44.1 kHz, 417 bytes."""
MP2 = bytes.fromhex("fffd8404") + bytes(380)
"""One frame: MPEG-1 layer II, 128 kbit/s, 48 kHz, 384 bytes."""
AAC = bytes.fromhex("fff14c800c7ffc") + bytes(92)
"""One frame of 99 bytes."""


@pytest.mark.parametrize(
    ("head", "demuxer"),
    [
        (b"fLaC" + bytes(20), "flac"),
        (b"OggS" + bytes(20), "ogg"),
        (bytes.fromhex("1a45dfa3") + bytes(20), "matroska"),
        (b"RIFF0000WAVEfmt ", "wav"),
        (b"RF640000WAVEds64", "wav"),
        (b"FORM0000AIFF", "aiff"),
        (b"FORM0000AIFC", "aiff"),
        (bytes(3) + b"\x20ftypM4A ", "mov"),
        (b"caff0000desc", "caf"),
        (b"#!AMR-WB\n123", "amr"),
        (b".snd00000000", "au"),
        (MP3 * 3, "mp3"),
        (MP2 * 3, "mp3"),
        (AAC * 3, "aac"),
    ],
)
def test_a_format_is_known_by_its_first_bytes(head: bytes, demuxer: str) -> None:
    assert sniff(head, complete=False) == Found(demuxer)
    assert demuxer in DEMUXERS


@pytest.mark.parametrize("frame", [MP3, AAC])
def test_one_lonely_frame_is_believed_only_at_the_very_beginning(frame: bytes) -> None:
    assert sniff(frame, complete=False) == "more"
    assert isinstance(sniff(frame, complete=True), Found)
    assert sniff(b"?" + frame, complete=True) == "unknown"


def test_frames_behind_junk_are_found_where_they_begin() -> None:
    assert sniff(b"\xff\xfb junk" + MP3 * 4, complete=False) == Found("mp3", 7)


@pytest.mark.parametrize(
    "head",
    [
        b"#EXTM3U\n",
        b"RIFF0000AVI LIST",
        b"FORM00008SVX",
        b"\xff" * 4000,
        b"\xff\xff\xff\xff" + bytes(100),
        b"",
    ],
)
def test_anything_else_is_unknown(head: bytes) -> None:
    assert sniff(head, complete=True) == "unknown"


def test_only_as_much_is_asked_for_as_is_needed() -> None:
    assert sniff(b"RIFF0000WAV", complete=False) == "more"
    assert sniff(MP3 * 2, complete=False) == "more"


def test_a_tag_says_how_long_it_is() -> None:
    assert id3_bytes(b"ID3\4\0\0\0\0\2\1") == 10 + 257
    assert id3_bytes(b"ID3\4\0\x10\0\0\2\1") == 20 + 257
    assert id3_bytes(b"ID3\4\0\0\0\0\2") == 0
    assert id3_bytes(b"TAG3\4\0\0\0\2\1") == 0
