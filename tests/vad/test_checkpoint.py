import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from services.common.audio import FloatArray
from services.common.errors import CheckpointError
from services.vad import checkpoint
from services.vad.detector import WINDOW_SAMPLES
from services.vad.endpointer import EndpointerState


@st.composite
def states(draw: st.DrawFn) -> EndpointerState:
    through = draw(st.integers(0, 1 << 48))
    positions = st.integers(0, through + WINDOW_SAMPLES)
    start = draw(st.none() | positions)
    return EndpointerState(
        through_sample=through,
        floor_sample=draw(positions),
        probability=draw(st.floats(0, 1)),
        start_sample=start,
        speaking=start is not None and draw(st.booleans()),
        end_sample=draw(positions),
        quietest=draw(st.floats(0, 1) | st.just(float("inf"))),
        quietest_sample=draw(positions),
    )


memories = arrays(np.float32, 8, elements=st.floats(-100, 100, width=32))


@given(state=states(), memory=memories)
def test_what_is_decoded_is_what_was_encoded(state: EndpointerState, memory: FloatArray) -> None:
    decoded, remembered = checkpoint.decode(checkpoint.encode(state, memory), 8)
    assert decoded == state
    assert (remembered == memory).all()


@given(state=states(), memory=memories, position=st.integers(0, 1 << 16), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed(
    state: EndpointerState, memory: FloatArray, position: int, bit: int
) -> None:
    data = bytearray(checkpoint.encode(state, memory))
    data[position % len(data)] ^= 1 << bit
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.decode(bytes(data), 8)


@pytest.mark.parametrize("num_bytes", [0, 1, 50, 92])
def test_a_checkpoint_that_was_cut_off_is_noticed(num_bytes: int) -> None:
    data = checkpoint.encode(EndpointerState(0, 0), np.zeros(8, np.float32))
    assert num_bytes < len(data)
    with pytest.raises(CheckpointError, match=f"it has {num_bytes} bytes"):
        checkpoint.decode(data[:num_bytes], 8)


def test_what_is_no_number_is_refused() -> None:
    data = checkpoint.encode(EndpointerState(0, 0), np.full(8, np.nan, np.float32))
    with pytest.raises(CheckpointError, match="no number"):
        checkpoint.decode(data, 8)


@pytest.mark.parametrize(
    "state",
    [
        EndpointerState(0, 1 << 40),
        EndpointerState(0, 0, start_sample=1 << 40),
        EndpointerState(0, 0, end_sample=1 << 40),
        EndpointerState(0, 0, quietest_sample=1 << 40),
        EndpointerState(0, -1),
        EndpointerState(1 << 62, 0),
        EndpointerState(0, 0, speaking=True),
    ],
)
def test_a_state_that_no_stream_can_be_in_is_refused(state: EndpointerState) -> None:
    data = checkpoint.encode(state, np.zeros(8, np.float32))
    with pytest.raises(CheckpointError, match="holds no state"):
        checkpoint.decode(data, 8)
