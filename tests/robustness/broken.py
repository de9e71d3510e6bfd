"""Broken input for property tests: valid bytes, and what accidents and attackers make of them."""

from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st

Case = TypeVar("Case")

_SIZES = st.sampled_from(
    [
        *(bytes(4), b"\xff" * 4, b"\xff" * 8, b"\0\0\0\1"),
        *(b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x10\0\0\0", b"\0\0\0\x10"),
    ]
)
"""What is written where a format says how long something is."""
_HEADER_BYTES = 200


def times(share: float) -> settings:
    """So many examples, as a share of the profile's: what takes longer is tried less often."""
    return settings(max_examples=max(1, round(share * settings().max_examples)))


@st.composite
def broken(draw: st.DrawFn, *valid: bytes) -> bytes:
    """One of these, cut off, spliced, with bits flipped and sizes that are not true."""
    data = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(0, 4))):
        near = st.integers(0, min(len(data), _HEADER_BYTES))
        place = draw(near | st.integers(0, len(data)))
        match draw(
            st.sampled_from(["cut", "flip", "size", "insert", "remove", "repeat", "splice"])
        ):
            case "cut":
                del data[place:]
            case "flip" if place < len(data):
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "size":
                size = draw(_SIZES)
                data[place : place + len(size)] = size
            case "insert":
                data[place:place] = draw(st.binary(max_size=16))
            case "remove":
                del data[place : place + draw(st.integers(1, 64))]
            case "repeat":
                data += data[place : place + 4096]
            case "splice":
                other = draw(st.sampled_from(valid))
                data[place:] = other[draw(st.integers(0, len(other))) :]
    return bytes(data)


@st.composite
def pieces(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> list[bytes]:
    """Bytes as they arrive: cut into pieces of one size, perhaps after a short one."""
    data = draw(whole)
    first, size = draw(st.integers(0, 64)), draw(st.sampled_from([7, 512, 1 << 20]))
    starts = range(first, len(data), size)
    return [data[:first], *(data[start : start + size] for start in starts)]


def json_values() -> st.SearchStrategy[object]:
    """Anything that JSON can say, lone surrogates and numbers beyond all bounds among it."""
    scalars = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.sampled_from([10**30, -1, 1 << 31, 1 << 48, 1 << 64])
        | st.text(st.characters(), max_size=8)
    )
    return st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=8,
    )
