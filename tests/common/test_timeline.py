import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.timeline import Span, samples, samples_of_ms, seconds


@pytest.mark.parametrize(
    ("duration_ms", "num_samples"), [(0, 0), (1, 16), (32, 512), (100, 1600), (1000, 16_000)]
)
def test_milliseconds_become_samples(duration_ms: int, num_samples: int) -> None:
    assert samples_of_ms(duration_ms) == num_samples


@pytest.mark.parametrize(
    ("duration_s", "num_samples"), [(0.0, 0), (0.1, 1600), (1 / 3, 5333), (2 / 3, 10_667)]
)
def test_seconds_become_samples_rounded_to_the_nearest(duration_s: float, num_samples: int) -> None:
    assert samples(duration_s) == num_samples


@given(num_samples=st.integers(0, 10**12))
def test_a_position_survives_seconds(num_samples: int) -> None:
    assert samples(seconds(num_samples)) == num_samples


def test_a_span_is_as_long_as_its_samples() -> None:
    assert len(Span(100, 350)) == 250
