import json
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import CheckpointError
from services.common.sealed import position_of, seal, text_of, unseal
from services.common.wire import MAX_POSITION

FIELDS = {"text": " bé", "numbers": [1, 2.5], "none": None}


def test_what_is_unsealed_is_what_was_sealed() -> None:
    assert unseal(seal(FIELDS), lambda fields: fields) == FIELDS


@given(position=st.integers(0, 1 << 16), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed(position: int, bit: int) -> None:
    data = bytearray(seal(FIELDS))
    data[position % len(data)] ^= 1 << bit
    with pytest.raises(CheckpointError, match="damaged"):
        unseal(bytes(data), lambda fields: fields)


@pytest.mark.parametrize("size", range(len(seal(FIELDS))))
def test_bytes_that_were_cut_off_are_noticed(size: int) -> None:
    with pytest.raises(CheckpointError, match="damaged"):
        unseal(seal(FIELDS)[:size], lambda fields: fields)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_holds_no_state_whatever_its_seal(text: bytes) -> None:
    with pytest.raises(CheckpointError, match="holds no state"):
        unseal(struct.pack("<I", zlib.crc32(text)) + text, lambda fields: fields)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("5", lambda number: number["text"]),
        ("{}", lambda fields: fields["text"]),
        ("[]", lambda numbers: numbers.pop("text")),
        ("1e999", int),
        ('"x"', int),
        ("-1", position_of),
        (str(MAX_POSITION + 1), position_of),
        ('"\\ud800"', text_of),
    ],
)
def test_fields_that_make_no_sense_hold_no_state(said: str, read: object) -> None:
    assert callable(read)
    data = seal(json.loads(f'{{"field": {said}}}'))
    with pytest.raises(CheckpointError, match="holds no state"):
        unseal(data, lambda fields: read(fields["field"]))


def test_texts_and_positions_are_read_as_they_were() -> None:
    assert (text_of(" bé"), position_of(0), position_of(MAX_POSITION)) == (" bé", 0, MAX_POSITION)


def test_an_error_does_not_say_what_was_said() -> None:
    with pytest.raises(CheckpointError) as refused:
        unseal(seal({"number": "secret"}), lambda fields: int(fields["number"]))
    assert "secret" not in str(refused.value)
