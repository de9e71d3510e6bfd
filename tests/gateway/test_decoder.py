import asyncio
import io
import struct
import threading
import time
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import cycle

import numpy as np
import pytest

from services.common.errors import InvalidRequestError, MeshError, StreamTooLongError
from services.gateway import container
from services.gateway.decoder import (
    BLOCK_BYTES,
    AudioFormat,
    ContainerFormat,
    Decoder,
    EmptyAudioError,
    Encoding,
    PacketCodec,
    PacketFormat,
    RawFormat,
    count_channels,
    open_decoder,
)
from services.gateway.sniff import id3_bytes
from tests.gateway.encode import Samples, encoded, offline, packed, packets, resampled, speech

FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
INDEX_FIRST = {"movflags": "faststart"}

FILES: dict[str, tuple[str, str, int, int, dict[str, str]]] = {
    "wav 16 kHz": ("wav", "pcm_s16le", 16000, 1, {}),
    "wav 44.1 kHz stereo": ("wav", "pcm_s16le", 44100, 2, {}),
    "wav float": ("wav", "pcm_f32le", 48000, 1, {}),
    "wav mulaw": ("wav", "pcm_mulaw", 8000, 1, {}),
    "flac": ("flac", "flac", 48000, 2, {}),
    "ogg opus": ("ogg", "libopus", 48000, 1, {}),
    "webm opus": ("webm", "libopus", 48000, 2, {}),
    "mp3": ("mp3", "libmp3lame", 44100, 2, {}),
    "aac": ("adts", "aac", 48000, 1, {}),
    "m4a, index last": ("ipod", "aac", 44100, 1, {}),
    "m4a, index first": ("ipod", "aac", 48000, 1, INDEX_FIRST),
    "m4a, fragmented": ("mp4", "aac", 48000, 1, FRAGMENTED),
    "m4a, alac": ("ipod", "alac", 48000, 1, {}),
    "aiff": ("aiff", "pcm_s16be", 44100, 1, {}),
    "caf": ("caf", "pcm_s16le", 48000, 1, {}),
    "au": ("au", "pcm_s16be", 48000, 1, {}),
}


def file(name: str, samples: Samples) -> bytes:
    container, codec, rate_hz, channels, options = FILES[name]
    return encoded(samples, container, codec, rate_hz=rate_hz, channels=channels, options=options)


def wav_of(pcm: bytes) -> bytes:
    """A file with samples of 16 kHz."""
    out = io.BytesIO()
    with wave.open(out, "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
        writer.writeframes(pcm)
    return out.getvalue()


def pieces(data: bytes, *sizes: int) -> Iterator[bytes]:
    start = 0
    for size in cycle(sizes):
        if start >= len(data):
            return
        yield data[start : start + size]
        start += size


async def decoded(
    data: bytes,
    audio_format: AudioFormat | None = None,
    *,
    sizes: tuple[int, ...] = (4096,),
    max_duration_s: float = 3600,
    max_spool_bytes: int = 1 << 26,
    may_have_header: bool = False,
) -> Samples:
    blocks: list[bytes] = []
    async with open_decoder(
        audio_format or ContainerFormat(),
        max_duration_s=max_duration_s,
        max_spool_bytes=max_spool_bytes,
        may_have_header=may_have_header,
    ) as decoder:

        async def write() -> None:
            for piece in pieces(data, *sizes):
                await decoder.write(piece)
            decoder.close()

        writing = asyncio.create_task(write(), name="test.write")
        try:
            async for block in decoder.blocks():
                assert 0 < len(block) <= BLOCK_BYTES
                blocks.append(block)
        finally:
            await writing
    return np.frombuffer(b"".join(blocks), "<i2")


async def test_sixteen_kilohertz_samples_pass_unchanged_however_they_are_cut() -> None:
    pcm = np.random.default_rng(1).integers(-32768, 32767, 16000, np.int16)
    got = await decoded(pcm.tobytes(), RawFormat("linear16", 16000, 1), sizes=(1, 3, 7, 1023, 4097))
    assert np.array_equal(got, pcm)


async def test_half_a_sample_at_the_end_is_dropped() -> None:
    got = await decoded(b"\1\0\2\0\3", RawFormat("linear16", 16000, 1))
    assert got.tolist() == [1, 2]


async def test_no_raw_samples_are_no_blocks_and_no_error() -> None:
    assert len(await decoded(b"", RawFormat("mulaw", 8000, 1))) == 0


@pytest.mark.parametrize("rate_hz", [44100, 48000])
async def test_ten_minutes_of_a_tone_keep_their_length_and_pitch(rate_hz: int) -> None:
    num_samples = 600 * rate_hz
    tone = np.sin(2 * np.pi * 440 * np.arange(num_samples) / rate_hz) * 16384
    got = await decoded(
        tone.astype("<i2").tobytes(), RawFormat("linear16", rate_hz, 1), sizes=(rate_hz,)
    )
    assert abs(len(got) - 600 * 16000) <= 1
    expected = np.sin(2 * np.pi * 440 * np.arange(len(got)) / 16000) * 16384
    assert np.abs(got - expected)[100:-100].max() < 4


@pytest.mark.parametrize("rate_hz", [8000, 11025, 22050, 24000, 32000, 96000, 192_000])
async def test_any_rate_gives_the_exact_number_of_samples(rate_hz: int) -> None:
    got = await decoded(bytes(2 * (rate_hz + 7)), RawFormat("linear16", rate_hz, 1), sizes=(1001,))
    assert abs(len(got) - 16000 * (rate_hz + 7) / rate_hz) <= 1


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("linear16", np.array([0, 8192, -16384], "<i2").tobytes()),
        ("linear32", np.array([0, 8192 << 16, -16384 << 16], "<i4").tobytes()),
        ("float32", np.array([0, 0.25, -0.5], "<f4").tobytes()),
    ],
)
async def test_every_width_means_the_same(encoding: Encoding, data: bytes) -> None:
    assert (await decoded(data, RawFormat(encoding, 16000, 1))).tolist() == [0, 8192, -16384]


@pytest.mark.parametrize(("encoding", "codec"), [("mulaw", "pcm_mulaw"), ("alaw", "pcm_alaw")])
async def test_telephone_codes_decode_as_ffmpeg_decodes_them(
    encoding: Encoding, codec: str
) -> None:
    codes = bytes(range(256))
    header_of = {"pcm_mulaw": 7, "pcm_alaw": 6}[codec]
    expected = offline(wav_header(len(codes), code=header_of, bits=8) + codes)
    assert np.array_equal(await decoded(codes, RawFormat(encoding, 16000, 1)), expected)


def wav_header(length: int, *, code: int = 1, bits: int = 16, rate_hz: int = 16000) -> bytes:
    width = bits // 8
    fmt = struct.pack("<HHIIHH", code, 1, rate_hz, rate_hz * width, width, bits)
    return (
        b"RIFF"
        + struct.pack("<I", min(length + 36, 0xFFFFFFFF))
        + (b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", length))
    )


async def test_channels_are_averaged() -> None:
    stereo = np.array([[100, 300], [-32768, 32767], [32767, 32767]], "<i2")
    got = await decoded(stereo.tobytes(), RawFormat("linear16", 16000, 2), sizes=(3,))
    assert got.tolist() == [200, 0, 32767]


@pytest.mark.parametrize(
    ("container", "codec"),
    [("wav", "pcm_s16le"), ("flac", "flac"), ("webm", "libopus"), ("mp4", "aac")],
)
async def test_channels_that_stay_apart_are_not_mixed(container: str, codec: str) -> None:
    tone = np.sin(np.arange(2 * 48000) * 2 * np.pi * 440 / 48000)[:, np.newaxis]
    file = packed((tone * [4000, 2000]).astype(np.int16), container, codec, rate_hz=48000)
    counted = await count_channels(
        ContainerFormat(), io.BytesIO(file), max_duration_s=10, max_spool_bytes=1 << 20
    )
    assert counted == 2
    got = (await decoded(file, ContainerFormat(apart=True))).reshape(-1, 2)
    assert len(got) == pytest.approx(2 * 16000, abs=1500)
    assert np.abs(got[8000:24000]).max(axis=0) == pytest.approx([4000, 2000], rel=0.1)
    with pytest.raises(StreamTooLongError):
        await decoded(file, ContainerFormat(apart=True), max_duration_s=1.5)


@pytest.mark.parametrize("data", [b"", b"no audio" * 100, wav_header(0)])
async def test_what_is_no_audio_has_no_channels(data: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        await count_channels(
            ContainerFormat(), io.BytesIO(data), max_duration_s=10, max_spool_bytes=1 << 20
        )


@pytest.mark.parametrize(
    ("codec", "encoder", "rate_hz"),
    [("opus", "libopus", 48000), ("amr-nb", "libopencore_amrnb", 8000)],
)
async def test_packets_sound_as_their_samples_did(
    codec: PacketCodec, encoder: str, rate_hz: int
) -> None:
    tone = (8000 * np.sin(np.arange(16000) * 2 * np.pi * 440 / 16000)).astype(np.int16)
    async with open_decoder(PacketFormat(codec, rate_hz), max_duration_s=2) as decoder:
        for packet in packets(tone, encoder, rate_hz=rate_hz):
            await decoder.write(packet)
        decoder.close()
        blocks = [np.frombuffer(block, np.int16) async for block in decoder.blocks()]
    got = np.concatenate(blocks)
    assert len(got) == pytest.approx(16000, abs=640)
    spectrum = np.abs(np.fft.rfft(got[4000:12000]))
    assert spectrum.argmax() * 2 == pytest.approx(440, abs=4)
    assert np.abs(got[4000:12000]).max() == pytest.approx(8000, rel=0.3)


async def test_packets_are_no_longer_than_allowed() -> None:
    async with open_decoder(PacketFormat("g729", 8000), max_duration_s=1) as decoder:
        for _ in range(30):
            await decoder.write(bytes(100))
        decoder.close()
        with pytest.raises(StreamTooLongError):
            assert sum([len(block) async for block in decoder.blocks()]) == 32_000


async def test_values_that_are_no_numbers_do_not_spread() -> None:
    samples = np.zeros(48000, "<f4")
    samples[100:200] = [np.nan, np.inf] * 50
    got = await decoded(samples.tobytes(), RawFormat("float32", 48000, 1))
    assert len(got) == 16000
    assert not got[200:].any()


@pytest.mark.parametrize(
    ("encoding", "rate_hz", "channels", "about"),
    [
        ("opus", 16000, 1, "opus"),
        ("linear16", 7999, 1, "7999"),
        ("linear16", 192_001, 1, "192001"),
        ("linear16", 16000, 0, "0 channels"),
        ("linear16", 16000, 9, "9 channels"),
    ],
)
def test_a_raw_format_that_cannot_be_is_refused(
    encoding: Encoding, rate_hz: int, channels: int, about: str
) -> None:
    with pytest.raises(InvalidRequestError, match=about):
        RawFormat(encoding, rate_hz, channels)


@pytest.mark.parametrize("name", FILES)
async def test_a_file_decodes_as_it_does_offline(name: str) -> None:
    samples = speech()[:64000]
    data = file(name, samples)
    got, expected = await decoded(data), offline(data)
    # Gapless playback data at the end of an MP3 is not looked for: it takes seeking.
    assert abs(len(got) - len(expected)) <= (500 if name == "mp3" else 0)
    both = min(len(got), len(expected))
    assert np.corrcoef(got[:both], expected[:both])[0, 1] > 0.9999
    assert abs(both - len(samples)) < 1200


@pytest.mark.parametrize("name", FILES)
async def test_how_a_file_is_cut_makes_no_difference(name: str) -> None:
    data = file(name, speech()[:8000])
    whole = await decoded(data, sizes=(1 << 20,))
    for sizes in ((1,), (3, 1, 700, 11)):
        assert np.array_equal(await decoded(data, sizes=sizes), whole)


async def test_an_mp4_of_many_fragments_may_be_cut_within_any_box_header() -> None:
    options = FRAGMENTED | {"frag_duration": "100000"}
    data = encoded(speech()[:24000], "mp4", "aac", options=options)
    assert data.count(b"moof") > 10
    whole = await decoded(data, sizes=(1 << 20,))
    for size in (1, 8, 16, 73):
        assert np.array_equal(await decoded(data, sizes=(size,)), whole)


@pytest.mark.parametrize("name", [n for n in FILES if n not in {"m4a, index last", "m4a, alac"}])
async def test_sound_comes_out_long_before_the_file_is_complete(name: str) -> None:
    data = file(name, speech()[:160_000])
    async with open_decoder(ContainerFormat(), max_duration_s=60) as decoder, asyncio.timeout(20):
        await decoder.write(data[: len(data) // 3])
        assert await anext(decoder.blocks())


async def test_a_long_tag_before_an_mp3_is_skipped() -> None:
    data = file("mp3", speech()[:32000])
    tag = b"ID3\4\0\0" + bytes([0, 8, 0, 0]) + bytes(8 << 14)
    assert np.array_equal(await decoded(tag + data), await decoded(data))


async def test_an_mp3_that_begins_in_the_middle_of_a_frame_is_found() -> None:
    data = file("mp3", speech()[:64000])
    assert len(await decoded(data[3000:])) > 30000


async def test_a_hint_lets_the_first_frame_be_further_away() -> None:
    junk = np.random.default_rng(2).integers(0, 128, 40_000, np.uint8).tobytes()
    data = junk + file("mp3", speech()[:32000])
    with pytest.raises(InvalidRequestError):
        await decoded(data)
    assert len(await decoded(data, ContainerFormat("audio/mpeg"))) > 30000


@pytest.mark.parametrize("length", [0, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFF00])
async def test_a_wav_whose_writer_did_not_know_its_length_is_read_to_the_end(length: int) -> None:
    pcm = np.random.default_rng(3).integers(-9999, 9999, 16000, np.int16)
    got = await decoded(wav_header(length) + pcm.tobytes(), max_duration_s=2)
    assert np.array_equal(got, pcm)


@pytest.mark.parametrize("name", FILES)
async def test_a_file_cut_off_gives_what_is_there(name: str) -> None:
    samples = speech()[:64000]
    data = file(name, samples)
    if name in {"m4a, index last", "m4a, alac"}:
        with pytest.raises(InvalidRequestError, match="cannot be decoded"):
            await decoded(data[: len(data) // 2])
        return
    got = await decoded(data[: len(data) // 2])
    expected = offline(data)
    assert len(got) > 15_000
    assert np.corrcoef(got[:15_000], expected[:15_000])[0, 1] > 0.9999


@pytest.mark.parametrize("name", ["flac", "ogg opus", "mp3", "aac"])
async def test_damage_in_the_middle_costs_little(name: str) -> None:
    data = bytearray(file(name, speech()[:64000]))
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    assert len(await decoded(bytes(data))) > 45_000


PLAYLISTS = {
    "HLS": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "ffconcat": b"ffconcat version 1.0\nfile /etc/passwd\nfile http://127.0.0.1/x\n",
    "DASH": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>'
    b"file:///etc/passwd</BaseURL></MPD>",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "SDP": b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=audio 5004 RTP/AVP 0\r\n",
    "playlist behind a tag": b"ID3\4\0\0\0\0\0\4abcd#EXTM3U\nfile:///etc/passwd\n",
    "text": b"This is not audio at all, whatever its name may say. " * 400,
    "PNG": b"\x89PNG\r\n\x1a\n" + bytes(5000),
    "zeros": bytes(100_000),
    "noise": np.random.default_rng(4).bytes(50_000),
    "one byte": b"R",
    "tag alone": b"ID3\4\0\0\0\0\0\4abcd",
}


@pytest.mark.parametrize("name", PLAYLISTS)
@pytest.mark.parametrize("hint", [None, "audio/mpeg", "application/vnd.apple.mpegurl", "hls"])
async def test_what_is_no_audio_is_refused_by_its_bytes(name: str, hint: str | None) -> None:
    with pytest.raises(InvalidRequestError, match="not audio in a format that is accepted"):
        await decoded(PLAYLISTS[name], ContainerFormat(hint))


async def test_garbage_is_refused_before_the_client_ends() -> None:
    async with open_decoder(ContainerFormat(), max_duration_s=60) as decoder, asyncio.timeout(20):
        await decoder.write(np.random.default_rng(5).bytes(34_000))
        with pytest.raises(InvalidRequestError):
            await anext(decoder.blocks())


@pytest.mark.parametrize(
    "magic", [b"fLaC", b"OggS", b"\x1a\x45\xdf\xa3", b"\0\0\0\x20ftypM4A ", b"RIFF\0\0\0\0WAVE"]
)
async def test_garbage_behind_a_true_beginning_is_refused(magic: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="cannot be decoded"):
        await decoded(magic + np.random.default_rng(6).bytes(30_000))


async def test_nothing_at_all_is_said_to_be_empty() -> None:
    with pytest.raises(EmptyAudioError, match="empty"):
        await decoded(b"")


async def test_a_header_without_a_sample_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="nothing of the input"):
        await decoded(wav_header(0))


async def test_a_film_without_sound_is_refused() -> None:
    import av

    out = io.BytesIO()
    with av.open(out, mode="w", format="matroska") as muxer:
        stream = muxer.add_stream("mpeg4", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = 64
        muxer.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        muxer.mux(stream.encode(None))
    with pytest.raises(InvalidRequestError, match="no audio track"):
        await decoded(out.getvalue())


@pytest.mark.parametrize(
    "data", [wav_header(3200, rate_hz=16) + bytes(3200), wav_header(4, rate_hz=1) + bytes(4)]
)
async def test_a_rate_that_would_blow_a_few_bytes_up_is_refused(data: bytes) -> None:
    with pytest.raises(MeshError):
        await decoded(data)


@pytest.mark.parametrize("name", FILES)
async def test_what_is_too_long_is_refused(name: str) -> None:
    with pytest.raises(StreamTooLongError, match=r"limited to 1\.5 s"):
        await decoded(file(name, speech()[:64000]), max_duration_s=1.5)


async def test_a_header_that_claims_too_much_is_refused_before_anything_is_decoded() -> None:
    async with open_decoder(ContainerFormat(), max_duration_s=60) as decoder, asyncio.timeout(20):
        await decoder.write(wav_header(16000 * 2 * 61) + bytes(9000))
        with pytest.raises(StreamTooLongError):
            await anext(decoder.blocks())


async def test_raw_samples_stop_at_the_longest_duration() -> None:
    blocks = []
    async with open_decoder(RawFormat("linear16", 48000, 2), max_duration_s=1) as decoder:
        await decoder.write(bytes(4 * 60_000))
        with pytest.raises(StreamTooLongError):
            async for block in decoder.blocks():
                blocks.append(block)  # noqa: PERF401 - what came before the error counts
        await decoder.write(bytes(1 << 20))  # dropped, or it would wait for ever
    assert sum(map(len, blocks)) == 32000


@pytest.mark.parametrize(
    "audio_format", [RawFormat("linear16", 16000, 1), ContainerFormat()], ids=["raw", "container"]
)
async def test_what_is_written_after_the_end_is_dropped(audio_format: AudioFormat) -> None:
    data = wav_header(6400) + bytes(6400) if isinstance(audio_format, ContainerFormat) else bytes(8)
    async with open_decoder(audio_format, max_duration_s=60) as decoder, asyncio.timeout(20):
        await decoder.write(data)
        decoder.close()
        await decoder.write(bytes(1 << 20))
        await decoder.write(bytes(1 << 20))
        got = b"".join([block async for block in decoder.blocks()])
    assert len(got) in {6400, 8}


async def test_an_mp4_that_must_be_spooled_is_limited() -> None:
    data = file("m4a, index last", speech()[:64000])
    with pytest.raises(StreamTooLongError, match="1000 bytes"):
        await decoded(data, max_spool_bytes=1000)


async def test_what_stands_beside_the_samples_of_a_wav_is_passed_over() -> None:
    header, pcm = wav_header(6400), bytes(range(200)) * 32
    beside = b"JUNK" + struct.pack("<I", 5) + b"12345\0" + b"LIST" + struct.pack("<I", 0)
    data = header[:12] + beside + header[12:36] + beside + header[36:] + pcm
    for sizes in ((1,), (7,), (1 << 20,)):
        assert (await decoded(data, sizes=sizes)).tobytes() == pcm
    with pytest.raises(StreamTooLongError):
        await decoded(data, max_duration_s=0.1)


async def test_a_wav_whose_format_is_longer_than_it_can_be_is_refused() -> None:
    header = wav_header(6400)
    data = header[:16] + struct.pack("<I", 1 << 30) + header[20:] + bytes(6400)
    with pytest.raises(InvalidRequestError, match="begins like wav, but cannot be decoded"):
        await decoded(data)


async def test_tags_in_a_row_are_each_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0

    def counted(head: bytes) -> int:
        nonlocal looked_at
        looked_at += len(head)
        return id3_bytes(head)

    monkeypatch.setattr(container, "id3_bytes", counted)
    tags = b"ID3\4\0\0\0\0\0\0" * 1000
    assert len(await decoded(tags + file("mp3", speech()[:16000]), sizes=(1 << 20,))) > 15_000
    assert looked_at < 2 * len(tags)


@pytest.mark.parametrize("sizes", [(1,), (5, 6, 7), (4096,)])
@pytest.mark.parametrize("name", ["wav 44.1 kHz stereo", "flac", "ogg opus", "webm opus"])
async def test_a_header_counts_more_than_what_is_announced(
    name: str, sizes: tuple[int, ...]
) -> None:
    data = file(name, np.random.default_rng(1).integers(-9000, 9000, 4000, np.int16))
    announced = RawFormat("linear16", 8000)
    got = await decoded(data, announced, sizes=sizes, may_have_header=True)
    assert np.array_equal(got, await decoded(data))


@pytest.mark.parametrize("num_bytes", [0, 2, 10, 12, 14, 32_000])
async def test_samples_without_a_header_are_what_is_announced(num_bytes: int) -> None:
    data = np.random.default_rng(1).integers(0, 256, num_bytes, np.uint8).tobytes()
    announced = RawFormat("linear16", 16_000)
    for sizes in ((1,), (5, 6, 7), (4096,)):
        got = await decoded(data, announced, sizes=sizes, may_have_header=True)
        assert got.tobytes() == data


async def test_audio_may_end_before_it_is_clear_what_it_is() -> None:
    announced = RawFormat("linear16", 16_000)
    async with open_decoder(announced, max_duration_s=60, may_have_header=True) as decoder:
        await decoder.drained()
        await decoder.write(b"RIFF")
        await decoder.drained()  # No more can be said about it.
        decoder.close()
        await decoder.write(b"\0\0\0\0WAVE")
        assert [block async for block in decoder.blocks()] == [b"RIFF"]
        await decoder.drained()


async def test_hours_of_silence_in_a_small_file_cost_neither_memory_nor_time() -> None:
    data = encoded(np.zeros(16000 * 1200, np.int16), "flac", "flac", rate_hz=16000)
    assert len(data) < 1_000_000
    async with open_decoder(ContainerFormat(), max_duration_s=3600) as decoder:
        await decoder.write(data)
        decoder.close()
        blocks = decoder.blocks()
        await anext(blocks)
        await asyncio.sleep(0.3)  # the thread runs as far ahead as it may
        ahead = decoder._output._size  # type: ignore[attr-defined]
        assert ahead <= 10 * 32000 + BLOCK_BYTES
        await blocks.aclose()  # type: ignore[attr-defined]


async def test_a_writer_waits_while_nobody_reads() -> None:
    data = file("wav 44.1 kHz stereo", np.tile(speech()[:160_000], 3))
    async with open_decoder(ContainerFormat(), max_duration_s=600) as decoder:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                for piece in pieces(data, 8192):
                    await decoder.write(piece)


def decoding_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("gateway.decode")]


@pytest.mark.parametrize("name", ["webm opus", "m4a, index last"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
async def test_a_client_that_leaves_takes_the_thread_with_it(name: str, share: float) -> None:
    data = file(name, speech()[:64000])
    started = time.monotonic()
    async with open_decoder(ContainerFormat(), max_duration_s=600) as decoder:
        await decoder.write(data[: int(len(data) * share)])
        assert decoding_threads()
    assert not decoding_threads()
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("name", FILES)
async def test_a_client_that_leaves_is_nothing_to_write_about(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = file(name, speech()[:64000])
    for share in (0.01, 0.1, 0.5):
        async with open_decoder(ContainerFormat(), max_duration_s=600) as decoder:
            await decoder.write(data[: int(len(data) * share)])
            await asyncio.sleep(0.05)  # for FFmpeg to read it, and to wait for more
    assert capfd.readouterr().err == ""


async def test_many_clients_that_leave_leave_nothing_behind() -> None:
    data = file("webm opus", speech()[:64000])

    async def visit(number: int) -> None:
        async with open_decoder(ContainerFormat(), max_duration_s=600) as decoder:
            await decoder.write(data[: len(data) * number // 40])
            async for _ in decoder.blocks():
                await asyncio.sleep(60)

    visits = [asyncio.create_task(visit(n), name=f"test.visit-{n}") for n in range(40)]
    await asyncio.sleep(0.5)  # some are decoding now, some wait for more
    for task in visits:
        task.cancel()
    await asyncio.gather(*visits, return_exceptions=True)
    assert not decoding_threads()


async def test_a_wav_written_by_python_is_what_python_reads() -> None:
    pcm = resampled(speech()[:16000], 16000)[:, 0]
    assert np.array_equal(await decoded(wav_of(pcm.tobytes())), pcm)


@asynccontextmanager
async def reading(decoder: Decoder, *, each_s: float = 0.0) -> AsyncIterator[list[int]]:
    """Read what is decoded, so slowly; yields how many bytes came."""
    sizes: list[int] = []

    async def read() -> None:
        async for block in decoder.blocks():
            await asyncio.sleep(each_s)
            sizes.append(len(block))

    task = asyncio.create_task(read())
    yield sizes
    decoder.close()
    with suppress(InvalidRequestError):
        await task


@pytest.mark.parametrize(
    ("audio_format", "data"),
    [
        (RawFormat("linear16", 24_000), bytes(10 * 2 * 24_000)),
        (ContainerFormat(), wav_of(bytes(10 * 2 * 16_000))),
    ],
)
async def test_whoever_flushes_waits_for_all_that_was_written(
    audio_format: AudioFormat, data: bytes
) -> None:
    async with (
        open_decoder(audio_format, max_duration_s=100) as decoder,
        reading(decoder, each_s=0.001) as sizes,
    ):
        await decoder.write(data)
        await decoder.drained()
        assert sum(sizes) > 0.9 * 10 * 2 * 16_000


@pytest.mark.parametrize(
    ("audio_format", "data"),
    [
        (RawFormat("linear16", 16_000), b"\0"),
        (ContainerFormat(), wav_of(b"")),
        (ContainerFormat(), b"#EXTM3U\nhttp://127.0.0.1/"),
    ],
)
async def test_bytes_of_which_nothing_can_be_said_yet_keep_nobody_waiting(
    audio_format: AudioFormat, data: bytes
) -> None:
    async with (
        open_decoder(audio_format, max_duration_s=100) as decoder,
        reading(decoder) as sizes,
    ):
        await decoder.write(data)
        await decoder.drained()
        assert sizes == []


async def test_nobody_waits_for_a_decoder_that_nobody_reads() -> None:
    for audio_format in (RawFormat("linear16", 16_000), ContainerFormat()):
        async with open_decoder(audio_format, max_duration_s=100) as decoder:
            await decoder.write(bytes(32_000))
            decoder.abandon()
            await decoder.drained()
            await decoder.write(bytes(1 << 20))
