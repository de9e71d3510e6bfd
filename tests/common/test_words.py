from hypothesis import given
from hypothesis import strategies as st

from services.common.words import Word, text_of, words_from_proto, words_to_proto
from voxmesh.common.v1 import text_pb2

words = st.builds(
    Word,
    text=st.text(min_size=1),
    first_sample=st.integers(0, 1 << 62),
    end_sample=st.integers(0, 1 << 62),
    probability=st.floats(0, 1, width=32),
    token_ids=st.lists(st.integers(0, (1 << 32) - 1), max_size=5).map(tuple),
)


@given(words=st.lists(words, max_size=5))
def test_words_survive_the_wire(words: list[Word]) -> None:
    wire = [message.SerializeToString() for message in words_to_proto(words)]
    assert words_from_proto(map(text_pb2.Word.FromString, wire)) == tuple(words)


def test_joining_words_gives_the_text_with_its_leading_space() -> None:
    assert text_of([Word(" To", 0, 1), Word(" be,", 1, 2), Word("或", 2, 3)]) == " To be,或"
    assert text_of([]) == ""
