"""Which container a run of bytes is, from its first bytes alone.

FFmpeg is never asked to guess: its probing also knows playlists, which name further files and
addresses to open. Only what is recognised here is opened, by the demuxer named here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"caff", "caf"),
    (0, b"#!AMR", "amr"),
    (0, b".snd", "au"),
    (4, b"ftyp", "mov"),
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (4, b"wide", "mov"),
)
_IFF = {
    (b"RIFF", b"WAVE"): "wav",
    (b"RF64", b"WAVE"): "wav",
    (b"FORM", b"AIFF"): "aiff",
    (b"FORM", b"AIFC"): "aiff",
}
MAGIC_BYTES = 12
"""So many bytes say what a container is, but for MP3 and AAC."""
_FRAMES_IN_A_ROW = 3

DEMUXERS = frozenset({*(name for _, _, name in _MAGIC), *_IFF.values(), "mp3", "aac"})
"""Every demuxer that may be opened, by FFmpeg's name."""

ID3_HEADER_BYTES = 10

_KBPS_V1 = {
    1: (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_KBPS_V2 = {
    1: (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    3: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MPEG_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


@dataclass(frozen=True, slots=True)
class Found:
    """What the bytes are."""

    demuxer: str
    """FFmpeg's name of the demuxer, one of ``DEMUXERS``."""
    offset: int = 0
    """Where the audio begins; what stands before it is junk."""


def id3_bytes(head: bytes) -> int:
    """How long the ID3v2 tag is that ``head`` begins with; 0: it begins with none.

    Such a tag may stand before MP3, AAC and FLAC, and says nothing about which of them follows.
    """
    if len(head) < ID3_HEADER_BYTES or not head.startswith(b"ID3"):
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    footer = ID3_HEADER_BYTES if head[5] & 0x10 else 0
    return ID3_HEADER_BYTES + size + footer


def is_container(head: bytes) -> bool:
    """Whether what ought to be samples or packets begins a file or MediaRecorder's stream instead.

    Frames of MP3 and AAC are not looked for: samples may look like them.
    """
    magic = (b"\x1a\x45\xdf\xa3", b"OggS", b"fLaC", b"ID3", b"#!AMR")
    wave = head.startswith(b"RIFF") and head[8:12] == b"WAVE"
    return head.startswith(magic) or wave or head[4:8] == b"ftyp"


def sniff(head: bytes, *, complete: bool) -> Found | Literal["more", "unknown"]:
    """Recognise a container.

    Args:
        head: The first bytes, behind any ID3 tag.
        complete: Whether nothing follows them that may be looked at.

    Returns:
        What was found, or "more" if more bytes are needed to tell, or "unknown".

    """
    if len(head) < MAGIC_BYTES and not complete:
        return "more"
    for at, magic, demuxer in _MAGIC:
        if head.startswith(magic, at):
            return Found(demuxer)
    if demuxer := _IFF.get((head[:4], head[8:12]), ""):
        return Found(demuxer)
    return _find_frames(head, complete=complete)


def _find_frames(head: bytes, *, complete: bool) -> Found | Literal["more", "unknown"]:
    """Find the first run of MP3 or AAC frames, each of which says where the next one begins."""
    offset = head.find(b"\xff")
    while offset >= 0:
        for demuxer, frame_bytes in _FRAMED.items():
            frames, cut_off = _run(head, offset, frame_bytes)
            # A file may be shorter than a run, but then its first byte counts.
            if frames == _FRAMES_IN_A_ROW or (complete and cut_off and offset == 0):
                return Found(demuxer, offset)
        offset = head.find(b"\xff", offset + 1)
    return "unknown" if complete else "more"


def _run(head: bytes, offset: int, frame_bytes: Callable[[bytes], int]) -> tuple[int, bool]:
    """How many frames follow one another from ``offset``, and whether only the end cut them off."""
    frames = 0
    while frames < _FRAMES_IN_A_ROW:
        header = head[offset : offset + 6]
        if len(header) < 6:
            return frames, frames > 0
        length = frame_bytes(header)
        if not length:
            return frames, False
        frames += 1
        offset += length
    return frames, False


def _mpeg_frame_bytes(header: bytes) -> int:
    """Length of the MPEG audio frame that begins so, or 0. Source: ISO 11172-3, 13818-3."""
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    kbps_index, rate_index = header[2] >> 4, header[2] >> 2 & 3
    if header[1] < 0xE0 or version == 1 or layer == 4 or kbps_index in {0, 15} or rate_index == 3:
        return 0
    bits_s = 1000 * (_KBPS_V1 if version == 3 else _KBPS_V2)[layer][kbps_index]
    rate_hz, padding = _MPEG_RATES_HZ[version][rate_index], header[2] >> 1 & 1
    if layer == 1:
        return (12 * bits_s // rate_hz + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits_s // rate_hz + padding


def _adts_frame_bytes(header: bytes) -> int:
    """Length of the ADTS frame that begins so, or 0. Source: ISO 14496-3, 1.A.3.2."""
    if header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 15 > 12:
        return 0
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length > 7 else 0


_FRAMED: dict[str, Callable[[bytes], int]] = {"mp3": _mpeg_frame_bytes, "aac": _adts_frame_bytes}
