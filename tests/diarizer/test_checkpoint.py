import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import CheckpointError
from services.diarizer import checkpoint
from services.diarizer.checkpoint import State
from services.diarizer.diarizer import Diarizer
from services.diarizer.engines.online import OnlineDiarizer
from services.diarizer.engines.online_memory import OnlineMemory, parse
from services.diarizer.engines.voices import Voice
from tests.diarizer.harness import LevelDiarizer, LevelMemory

SIZE = 5


@st.composite
def memories(draw: st.DrawFn) -> OnlineMemory:
    num_voices, num_frames = draw(st.integers(0, 10)), draw(st.integers(0, 20))
    numbers = np.random.default_rng(draw(st.integers(0, 1000)))
    return OnlineMemory(
        tuple(
            Voice(numbers.normal(size=SIZE).astype(np.float32), float(np.float32(number + 0.3)))
            for number in range(num_voices)
        ),
        draw(st.integers(0, 1 << 48)),
        draw(st.integers(num_frames, 1 << 40)),
        numbers.random((num_frames, num_voices)) < 0.5,
        {3: np.ones((2, 2), np.float32)},
    )


def the_same(one: OnlineMemory, other: OnlineMemory) -> bool:
    return (
        (one.settled_sample, one.settled_frame) == (other.settled_sample, other.settled_frame)
        and (one.labels == other.labels).all()
        and one.labels.shape == other.labels.shape
        and len(one.voices) == len(other.voices)
        and all(
            (a.total == b.total).all() and a.seconds == b.seconds
            for a, b in zip(one.voices, other.voices, strict=True)
        )
    )


@given(memory=memories())
def test_what_is_parsed_is_what_was_dumped(memory: OnlineMemory) -> None:
    parsed = parse(memory.dump(), SIZE)
    assert the_same(parsed, memory)
    assert not parsed.sound, "a successor hears it again"


@given(memory=memories(), share=st.floats(0, 0.999))
def test_a_memory_that_was_cut_off_is_noticed(memory: OnlineMemory, share: float) -> None:
    data = memory.dump()
    with pytest.raises(CheckpointError, match="damaged"):
        parse(data[: int(len(data) * share)], SIZE)


@given(memory=memories(), position=st.integers(0, 1 << 16), bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_memory_is_noticed_or_harmless(
    memory: OnlineMemory, position: int, bit: int
) -> None:
    """The checksum around it notices all of them."""
    data = bytearray(memory.dump())
    data[position % len(data)] ^= 1 << bit
    try:
        parsed = parse(bytes(data), SIZE)
    except CheckpointError:
        return
    assert np.isfinite([*(voice.seconds for voice in parsed.voices), 0]).all()
    assert len(parsed.labels) <= parsed.settled_frame


def test_voices_of_another_model_are_refused() -> None:
    memory = OnlineMemory((Voice(np.ones(4, np.float32), 1),), 0, 0, np.zeros((0, 1), bool))
    with pytest.raises(CheckpointError, match="voices of 4 numbers, not 5"):
        parse(memory.dump(), SIZE)


def memory_of(settled: int, frame: int, total: float = 1) -> OnlineMemory:
    voice = Voice(np.full(SIZE, total, np.float32), 1)
    return OnlineMemory((voice,), settled, frame, np.zeros((2, 1), bool))


@pytest.mark.parametrize(
    ("memory", "reason"),
    [
        (memory_of(-1, 2), "holds no state"),
        (memory_of(1 << 60, 2), "holds no state"),
        (memory_of(0, 1), "holds no state"),
        (memory_of(0, 1 << 60), "holds no state"),
        (memory_of(0, 2, float("nan")), "no number"),
        (memory_of(0, 2, float("inf")), "no number"),
    ],
)
def test_a_memory_that_no_stream_can_have_is_refused(memory: OnlineMemory, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        parse(memory.dump(), SIZE)


@pytest.fixture(scope="module")
def whole(online: OnlineDiarizer) -> tuple[Diarizer, State]:
    """A state of the real engine, two voices known."""
    numbers = np.random.default_rng(0)
    size = online._embedder.size
    heard = numbers.normal(size=(2, size)).astype(np.float32)
    voices = tuple(Voice(total, 3.0) for total in heard)
    memory = OnlineMemory(voices, 30_000, 100, numbers.random((100, 2)) < 0.5)
    return online, State(8640, 34_560, memory)


def test_what_is_decoded_is_what_was_encoded(whole: tuple[Diarizer, State]) -> None:
    diarizer, state = whole
    decoded = checkpoint.decode(checkpoint.encode(state), diarizer)
    assert (decoded.heard_first, decoded.heard_sample) == (8640, 34_560)
    assert isinstance(decoded.memory, OnlineMemory)
    assert isinstance(state.memory, OnlineMemory)
    assert the_same(decoded.memory, state.memory)
    assert checkpoint.encode(decoded) == checkpoint.encode(state)


def test_every_cut_and_every_flipped_byte_is_noticed(whole: tuple[Diarizer, State]) -> None:
    diarizer, state = whole
    data = checkpoint.encode(state)
    for place in range(len(data)):
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoint.decode(data[:place], diarizer)
        flipped = bytearray(data)
        flipped[place] ^= 0xFF
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoint.decode(bytes(flipped), diarizer)


@pytest.mark.parametrize(
    ("first", "end", "settled"),
    [
        (-1, 0, 0),
        (1, 0, 0),
        (0, 1 << 49, 0),
        (0, 10, 11),
        (0, LevelDiarizer.context_samples + 1, 0),
    ],
)
def test_a_state_that_no_stream_can_be_in_is_refused(first: int, end: int, settled: int) -> None:
    data = checkpoint.encode(State(first, end, LevelMemory((3,), settled)))
    with pytest.raises(CheckpointError, match="holds no state"):
        checkpoint.decode(data, LevelDiarizer())


def test_an_engine_that_cannot_read_its_part_refuses_it() -> None:
    body = bytes(16) + b"short"
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.decode(body + zlib.crc32(body).to_bytes(4, "little"), LevelDiarizer())


def test_the_format_names_the_engine_and_the_layout(whole: tuple[Diarizer, State]) -> None:
    assert checkpoint.format_of(whole[0]) == "online/1"
    assert checkpoint.format_of(LevelDiarizer()) == "level/1"
