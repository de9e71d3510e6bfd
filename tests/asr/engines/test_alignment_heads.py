import pytest

from services.asr.engines.alignment_heads import (
    PUBLISHED,
    default_heads,
    dump_heads,
    parse_heads,
)
from services.common.models import ModelError

TINY_EN = ((1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4))
SHAPES = {
    "tiny.en": (4, 6),
    "tiny": (4, 6),
    "base.en": (6, 8),
    "base": (6, 8),
    "small.en": (12, 12),
    "small": (12, 12),
    "medium.en": (24, 16),
    "medium": (24, 16),
    "large-v1": (32, 20),
    "large-v2": (32, 20),
    "large-v3": (32, 20),
    "large-v3-turbo": (4, 20),
}


@pytest.mark.parametrize(
    "text",
    [
        PUBLISHED["tiny.en"],
        f" {PUBLISHED['tiny.en']}\n",
        "[[1,0],[2,0],[2,5],[3,0],[3,1],[3,2],[3,3],[3,4]]",
        "[[3, 4], [3, 3], [3, 2], [3, 1], [3, 0], [2, 5], [2, 0], [1, 0], [1, 0]]",
    ],
)
def test_heads_are_the_same_in_every_form(text: str) -> None:
    assert parse_heads(text, num_layers=4, num_heads=6) == TINY_EN


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_dump_fits_its_model_and_can_be_written_again(name: str) -> None:
    layers, heads = SHAPES[name]
    found = parse_heads(PUBLISHED[name], num_layers=layers, num_heads=heads)
    assert 4 < len(found) < 25
    dump = dump_heads(found, num_layers=layers, num_heads=heads)
    assert parse_heads(dump, num_layers=layers, num_heads=heads) == found


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[]", "no alignment head is named"),
        ("[[4, 0]]", r"no head \[4, 0\]: its decoder has 4 layers of 6 heads"),
        ("[[0, -1]]", r"no head \[0, -1\]"),
        ("[[0]]", "should look like"),
        ("[3]", "should look like"),
        ("[[1, 2", "should look like"),
        ("", "a model with 0 heads"),
        ("three", "a dump"),
        (PUBLISHED["base"], "a model with 48 heads, not 24"),
    ],
)
def test_what_names_no_heads_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        parse_heads(text, num_layers=4, num_heads=6)


def test_where_nothing_is_known_the_later_half_of_the_layers_is_taken() -> None:
    assert default_heads(num_layers=3, num_heads=2) == ((1, 0), (1, 1), (2, 0), (2, 1))
