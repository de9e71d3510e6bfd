import pytest

from services.gateway.languages import NAMES, english_name, language_code


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("", ""),
        ("auto", ""),
        ("en", "en"),
        ("EN", "en"),
        ("en-US", "en"),
        ("pt_BR", "pt"),
        ("zh-Hans-CN", "zh"),
        ("English", "en"),
        (" german ", "de"),
        ("Haitian Creole", "ht"),
        ("Farsi", "fa"),
        ("nb-NO", "no"),
        ("yue", "yue"),
        ("xx", None),
        ("klingon", None),
        ("en US", None),
    ],
)
def test_a_language_may_be_written_in_many_ways(written: str, code: str | None) -> None:
    assert language_code(written) == code


def test_every_language_is_found_by_its_own_name() -> None:
    assert len(NAMES) == 100
    assert all(language_code(english_name(code)) == code for code in NAMES)
