import json

import pytest

from services.common.errors import CheckpointError
from services.common.sealed import seal
from services.translator.checkpoint import State, decode, encode
from services.translator.draft import Draft
from services.translator.policies.policy import Hypothesis
from tests.translator.harness import words

STATE = State(
    Draft(
        tuple(words("one two thrée")),
        1,
        (" UM",),
        (Hypothesis(1, (" UM",), (0,)), Hypothesis(3, (" UM", " DOIS"), (0, 2))),
    ),
    12_000,
)


def test_what_is_read_is_what_was_written() -> None:
    assert decode(encode(STATE)) == STATE
    assert decode(encode(State(Draft(), 0))) == State(Draft(), 0)


@pytest.mark.parametrize(
    "change",
    [
        {"end": 11_999},
        {"end": 1 << 60},
        {"end": 1e999},
        {"end": "soon"},
        {"covered": 3},
        {"covered": -1},
        {"words": [], "covered": 1, "hypotheses": []},
        {"words": [[" b", 1, 2], [" a", 0, 1]], "hypotheses": []},
        {"words": [[" b", 1, 2], [" a", 1, 2]], "hypotheses": []},
        {"words": [[" a", 2, 1], [" b", 2, 3]], "hypotheses": []},
        {"words": [["", 0, 1], [" b", 2, 3]], "hypotheses": []},
        {"words": [[" a", -1, 1], [" b", 2, 3]], "hypotheses": []},
        {"words": [["\ud800", 0, 1], [" b", 2, 3]], "hypotheses": []},
        {"words": [["a", 1]]},
        {"words": None},
        {"units": 5},
        {"units": ["\ud800"]},
        {"hypotheses": [[4, [" A"], []]]},
        {"hypotheses": [[0, [], []]]},
        {"hypotheses": [[1, [" A"], [0, 1]]]},
        {"hypotheses": [[1, ["\ud800"], []]]},
        {"hypotheses": [[]]},
    ],
    ids=str,
)
def test_a_state_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    fields = json.loads(encode(STATE)[4:])
    assert decode(seal(fields)) == STATE
    with pytest.raises(CheckpointError, match="holds no state"):
        decode(seal(fields | change))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"\xff\x00", encode(STATE)[:-1]])
def test_bytes_that_are_no_state_are_refused(data: bytes) -> None:
    with pytest.raises(CheckpointError, match="the checkpoint is damaged"):
        decode(data)
