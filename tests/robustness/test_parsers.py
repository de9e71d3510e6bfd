"""Whatever bytes a client sends, the gateway reads them or says what is wrong with them."""

import functools
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request

from services.cli import transcribe
from services.cli.live import read_wav
from services.common.errors import InvalidRequestError, MeshError
from services.gateway import uploads
from services.gateway.audio_input import BLOCK_BYTES, Encoding, RawFormat
from services.gateway.auth import Keys, KeysFileError, presented
from services.gateway.container import decode
from services.gateway.languages import NAMES, language_code
from services.gateway.protocols import converse, converse_socket, wlk
from services.gateway.protocols.openai_form import read_wish
from services.gateway.raw_decoder import open_raw
from services.gateway.resampler import Limits
from services.gateway.sniff import DEMUXERS, Found, sniff
from tests.gateway.test_decoder import FILES, file, wav_header
from tests.robustness.broken import broken, json_values, pieces, times
from voxmesh.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

LIMITS = Limits(max_duration_s=30, max_spool_bytes=1 << 20)
HEADS = (
    *(b"fLaC", b"OggS", b"\x1a\x45\xdf\xa3", b"RIFF0000WAVEfmt ", b"FORM0000AIFF", b"caff"),
    *(b"\0\0\0\x20ftypM4A ", b"ID3\3\0\0\0\0\0\4abcd", bytes.fromhex("fffb9064"), b"\xff\xf1"),
)


@functools.cache
def recordings() -> tuple[bytes, ...]:
    """Half a second of a tone in every format that is accepted."""
    tone = np.sin(np.arange(8000) * 0.17) * 9000
    return tuple(file(name, tone.astype(np.int16)) for name in FILES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("read")


# Audio


@given(head=broken(*HEADS) | st.binary(max_size=64), complete=st.booleans())
def test_the_first_bytes_name_a_known_demuxer_or_none(head: bytes, complete: bool) -> None:
    found = sniff(head, complete=complete)
    if isinstance(found, Found):
        assert found.demuxer in DEMUXERS
        assert 0 <= found.offset <= len(head)
    else:
        assert found == "unknown" or (found == "more" and not complete)


def test_a_broken_recording_is_decoded_or_refused_with_a_reason(
    capfd: pytest.CaptureFixture[str],
) -> None:
    @times(6)
    @given(pieces(broken(*recordings())))
    def check(arriving: list[bytes]) -> None:
        arrived = iter(arriving)
        with suppress(MeshError):
            for block in decode(lambda: next(arrived, None), LIMITS):
                assert 0 < len(block) <= BLOCK_BYTES
                assert len(block) % 2 == 0

    check()
    assert capfd.readouterr().err == ""


@times(0.5)
@given(
    encoding=st.sampled_from(["linear16", "linear32", "float32", "mulaw", "alaw", "opus"]),
    sample_rate_hz=st.sampled_from([0, 7999, 8000, 11025, 16000, 44100, 192_000, 1 << 31]),
    channels=st.integers(-1, 10),
    arriving=pieces(st.binary(max_size=5000) | st.just(b"\x01\x00\x80\x7f" * 1000)),
)
async def test_raw_samples_are_numbers_whatever_they_are(
    encoding: Encoding, sample_rate_hz: int, channels: int, arriving: list[bytes]
) -> None:
    try:
        audio_format = RawFormat(encoding, sample_rate_hz, channels)
    except InvalidRequestError:
        return
    async with open_raw(audio_format, max_duration_s=30) as decoder:
        for piece in arriving:
            await decoder.write(piece)
        decoder.close()
        heard = b"".join([block async for block in decoder.blocks()])
    width = {"linear16": 2, "linear32": 4, "float32": 4, "mulaw": 1, "alaw": 1}[encoding]
    frames = sum(map(len, arriving)) // (width * channels)
    # A whole stream that is shorter than its filter may stay in the resampler.
    allowed = 1 if frames >= sample_rate_hz // 200 else 80
    assert abs(len(heard) / 2 - frames * 16000 / sample_rate_hz) <= allowed


# Messages


class Spoken:
    """A WebSocket on which these frames come."""

    def __init__(self, frames: Sequence[dict[str, Any]]) -> None:
        self._frames: Iterator[dict[str, Any]] = iter(frames)

    async def receive(self) -> dict[str, Any]:
        return next(self._frames, {"type": "websocket.disconnect"})


TEXTS = (
    b'{"open": {"encoding": "ENCODING_LINEAR16", "resumable": true, "hotwords": ["a"]}}',
    b'{"open": {"frame_threshold": 3, "prompt": "p", "channels": 2, "task": 1}}',
    b'{"audio": "AAAA"}',
    b'{"flush": {"flush_id": "1"}}',
    b'{"resume": {"token": "t", "num_words": "1"}}',
    b'{"type": "snapshot"}',
)
FIELDS = ("open", "audio", "flush", "resume", "finish", "encoding", "prompt", "num_words")


def text_of(data: bytes) -> str:
    return data.decode(errors="replace")


def messages() -> st.SearchStrategy[str]:
    """Texts, of which some are JSON, and some of these name what there is."""
    values = json_values()
    named = st.dictionaries(st.sampled_from(FIELDS), values, max_size=2)
    shaped = named | st.dictionaries(st.sampled_from(FIELDS), named, max_size=2) | values
    mutated = broken(*TEXTS).map(text_of)
    return shaped.map(json.dumps) | mutated | st.text(max_size=40)


@given(st.lists(messages() | st.binary(max_size=16), max_size=3))
async def test_a_text_is_a_message_or_refused(frames: list[str | bytes]) -> None:
    received = [
        {"type": "websocket.receive", "text" if isinstance(frame, str) else "bytes": frame}
        for frame in frames
    ]
    requests = converse_socket._requests(cast("WebSocket", Spoken(received)))
    with suppress(InvalidRequestError):
        async for request in requests:
            understand(request)


@given(messages())
def test_a_text_asks_for_a_snapshot_or_does_not(text: str) -> None:
    assert wlk._asks_for_snapshot(text) in {True, False}


REQUESTS = [
    pb.ConverseRequest(open=pb.Open(encoding=pb.ENCODING_MULAW, sample_rate_hz=8000, channels=2)),
    pb.ConverseRequest(open=pb.Open(hotwords=["a"], prompt="b", language_code="en", model="m")),
    pb.ConverseRequest(open=pb.Open(task=pb.TASK_TRANSLATE, policy=pb.POLICY_EITHER)),
    pb.ConverseRequest(resume=pb.Resume(token="t", num_words=3)),
]


@given(broken(*(request.SerializeToString() for request in REQUESTS)))
def test_bytes_are_a_request_or_refused(data: bytes) -> None:
    try:
        request = pb.ConverseRequest.FromString(data)
    except DecodeError:  # ``services.common.rpc`` makes it a refusal
        return
    with suppress(InvalidRequestError):
        understand(request)


def understand(request: pb.ConverseRequest) -> None:
    """Read everything that a first message says."""
    assert request.WhichOneof("payload") in {"open", "audio", "flush", "resume", "finish", None}
    converse._format(request.open)
    converse._task(request.open)
    converse._policy(request.open)


# Keys, queries and languages


@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"authorization", b"x-api-key", b"sec-websocket-protocol"]),
            broken(b"Token K", b"bearer K", b"token, K", b"realtime-token.K,") | st.binary(),
        ),
        max_size=3,
    ),
    query=broken(b"token=K&api_key=%4b", b"language=en&token=%ff%fe") | st.binary(),
)
def test_what_is_presented_as_a_key_is_known_or_not(
    headers: list[tuple[bytes, bytes]], query: bytes, keys: Keys
) -> None:
    offers = list(presented(Headers(raw=headers), QueryParams(query)))
    assert keys.caller(offers) == ("alice" if "K" in offers else None)


@pytest.fixture(scope="module")
def keys(folder: Path) -> Keys:
    path = folder / "keys"
    path.write_bytes(KEYS_FILE)
    return Keys(path)


KEYS_FILE = (
    b"# who may connect\nalice 86be9a55762d316a3026c2836d044f5fc76e34da10e1b45feee5f18be7edb177\n"
)


@given(data=broken(KEYS_FILE, KEYS_FILE.replace(b"alice", "jürgen".encode())) | st.binary())
def test_a_file_of_keys_is_read_or_refused(data: bytes, folder: Path) -> None:
    path = folder / "keys"
    path.write_bytes(data)
    with suppress(KeysFileError):
        assert Keys(path).caller(["no such key"]) is None


@given(st.text() | broken(b"en-US", b"zh_Hant", b"auto", b"English").map(text_of))
def test_a_language_is_known_detected_or_unknown(written: str) -> None:
    assert language_code(written) in {*NAMES, "", None}


# Forms

FORM = (
    b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    b'--B\r\nContent-Disposition: form-data; name="temperature"\r\n\r\n0.5\r\n'
    b'--B\r\nContent-Disposition: form-data; name="timestamp_granularities[]"\r\n\r\n["word"]\r\n'
    b'--B\r\nContent-Disposition: form-data; name="language"\r\n\r\nen\r\n'
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\n" + wav_header(32) + bytes(32) + b"\r\n--B--\r\n"
)
KINDS = (b"multipart/form-data; boundary=B", b'multipart/form-data; charset="utf-8"; boundary=B')
CODECS = ("utf-8", "undefined", "unicode_escape", "utf-7", "idna", "zlib", "mbcs", "\xff", "")


@times(3)
@given(
    kind=broken(*KINDS)
    | st.sampled_from(CODECS).map(
        lambda codec: f"{KINDS[0].decode()}; charset={codec}".encode("latin-1")
    ),
    arriving=pieces(broken(FORM)),
)
async def test_a_form_is_a_wish_or_refused(kind: bytes, arriving: list[bytes]) -> None:
    body = iter(arriving)

    async def receive() -> dict[str, Any]:
        data = next(body, None)
        return {"type": "http.request", "body": data or b"", "more_body": data is not None}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", kind)]}
    with suppress(MeshError):
        async with uploads.receive_upload(Request(scope, receive), max_bytes=1 << 20) as upload:
            wish = read_wish(upload)
            wish.prompt.encode()  # it is sent on
            assert 0 <= wish.temperature <= 1


@given(json_values() | st.lists(st.sampled_from(["word", "segment"])))
def test_a_field_is_a_list_of_texts_whatever_it_holds(value: object) -> None:
    upload = uploads.Upload({}, {"names": [json.dumps(value)]})
    assert all(isinstance(text, str) for text in upload.texts("names"))


# What the command reads


@given(data=broken(wav_header(320) + bytes(320), wav_header(64, bits=8) + bytes(64)))
def test_a_recording_that_is_played_is_whole_or_refused(data: bytes, folder: Path) -> None:
    path = folder / "played.wav"
    path.write_bytes(data)
    try:
        recording = read_wav(path)
    except ValueError:
        return
    assert math.isfinite(recording.duration_s)
    assert b"".join(recording.frames()) == recording.pcm


@given(
    status=st.sampled_from([200, 204, 302, 400, 413, 500, 503]),
    body=broken(b'{"error": {"message": "no"}}', b'{"ready": true}', b"[" * 2000)
    | json_values().map(lambda value: json.dumps(value).encode()),
)
async def test_any_answer_of_a_server_is_a_text_or_a_reason(
    status: int, body: bytes, folder: Path
) -> None:
    path = folder / "uploaded.wav"
    path.write_bytes(b"audio")
    answer = httpx.MockTransport(lambda _request: httpx.Response(status, content=body))
    async with httpx.AsyncClient(transport=answer, base_url="http://server") as client:
        with suppress(transcribe.TranscribeError):
            assert isinstance(
                await transcribe._upload(
                    client, path, transcribe.Request(), lambda _done, _total: None
                ),
                str,
            )
