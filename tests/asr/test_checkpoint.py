import json
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.asr import checkpoint
from services.asr.checkpoint import State
from services.common.errors import CheckpointError
from services.common.timeline import samples
from services.common.words import Word

words = st.builds(
    Word,
    text=st.text(min_size=1),
    first_sample=st.integers(0, 1 << 48),
    end_sample=st.integers(0, 1 << 48),
    probability=st.floats(0, 1),
    token_ids=st.lists(st.integers(0, 60_000), max_size=4).map(tuple),
)


@st.composite
def states(draw: st.DrawFn) -> State:
    first = draw(st.integers(0, (1 << 48) - samples(30)))
    return State(
        window_first_sample=first,
        through_sample=first + draw(st.integers(0, samples(30))),
        settled_sample=draw(st.integers(0, 1 << 48)),
        committed=tuple(draw(st.lists(words, max_size=5))),
        hypotheses=tuple(draw(st.lists(st.lists(words, max_size=4).map(tuple), max_size=3))),
        context=tuple(draw(st.lists(st.integers(0, 60_000), max_size=32))),
        language_code=draw(st.sampled_from(["", "en", "yue"])),
    )


@given(states())
def test_what_is_decoded_is_what_was_encoded(state: State) -> None:
    assert checkpoint.decode(checkpoint.encode(state)) == state


@given(state=states(), position=st.integers(0, 1 << 16), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed(state: State, position: int, bit: int) -> None:
    data = bytearray(checkpoint.encode(state))
    data[position % len(data)] ^= 1 << bit
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.decode(bytes(data))


@given(state=states(), size=st.integers(0, 1 << 16))
def test_a_checkpoint_that_was_cut_off_is_noticed(state: State, size: int) -> None:
    data = checkpoint.encode(state)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.decode(data[: size % len(data)])


@given(st.binary(max_size=200))
def test_no_bytes_are_anything_but_a_state_or_damaged(data: bytes) -> None:
    with pytest.raises(CheckpointError):
        checkpoint.decode(data)


GOOD = State(
    0, samples(5), 0, (Word(" a", 0, 100, 0.5, (1, 2)),), ((Word(" b", 100, 200),),), (7, 8), "en"
)
FIELDS = json.loads(checkpoint.encode(GOOD)[4:])


def sealed(text: bytes) -> bytes:
    """Somebody who knows the form wrote this."""
    return struct.pack("<I", zlib.crc32(text)) + text


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"version": "1"},
        {"window_first_sample": None},
        {"window_first_sample": "x"},
        {"window_first_sample": samples(5) + 1},
        {"through_sample": samples(30) + 1},
        {"through_sample": 1e999},
        {"through_sample": []},
        {"committed": 5},
        {"committed": [5]},
        {"committed": [{}]},
        {"committed": [{"text": " a"}]},
        {"hypotheses": [[{**FIELDS["hypotheses"][0][0], "token_ids": ["x"]}]]},
        {"hypotheses": [[{**FIELDS["hypotheses"][0][0], "probability": "high"}]]},
        {"hypotheses": FIELDS["hypotheses"][0]},
        {"context": ["x"]},
        {"context": 5},
        {"context": [-1]},
        {"context": [1 << 31]},
        {"settled_sample": -1},
        {"window_first_sample": 10**30, "through_sample": 10**30},
        {"committed": [{**FIELDS["committed"][0], "end_sample": 10**30}]},
        {"committed": [{**FIELDS["committed"][0], "token_ids": [1 << 31]}]},
        {"committed": [{**FIELDS["committed"][0], "text": "\ud800"}]},
    ],
    ids=str,
)
def test_fields_that_make_no_sense_are_noticed(change: dict[str, object]) -> None:
    assert checkpoint.decode(sealed(json.dumps(FIELDS).encode())) == GOOD
    with pytest.raises(CheckpointError):
        checkpoint.decode(sealed(json.dumps(FIELDS | change).encode()))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"5", b"\xff", b"{}", b"[" * 100_000])
def test_what_is_no_object_is_noticed(text: bytes) -> None:
    with pytest.raises(CheckpointError):
        checkpoint.decode(sealed(text))
