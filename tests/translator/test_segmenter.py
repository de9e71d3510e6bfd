import re

import pytest

from services.translator.languages import resolve
from services.translator.segmenter import finished


@pytest.mark.parametrize(
    ("tag", "text", "lengths"),
    [
        ("en", "", []),
        ("en", " Hello", []),
        ("en", " Yes.", [1]),
        ("en", " Yes. Never. Thank you.", [1, 1, 2]),
        # It may be a number.
        ("en", " Yes. No. Thank you.", [1, 3]),
        ("en", " J. S. Bach wrote it. And", [5]),
        ("en", " What? Really?! And", [1, 1]),
        ("en", " Hello Mr.", []),
        ("en", " Hello Mr. Smith.", [3]),
        ("en", " It rose 3.5 percent. It", [4]),
        ("en", " It rose by 3.5", []),
        ("en", ' He said "Go." Then', [3]),
        ("en", " So ... I", []),
        ("de", " Das ist z. B. gut. Am 3. Mai kam er. Ja", [5, 5]),
        ("pt", " O Sr. Silva pagou R$ 3,50. Sim. E", [6, 1]),
        ("fr", " M. Dupont est là. Oui", [4]),
        ("hi", " नमस्ते। कैसे हो", [1]),
        ("ru", " Да. Нет! И", [1, 1]),
    ],
)
def test_sentences_end_where_they_do_and_nowhere_else(
    tag: str, text: str, lengths: list[int]
) -> None:
    assert finished(re.findall(r"\s*\S+", text), resolve(tag)) == lengths


@pytest.mark.parametrize(
    ("tag", "text", "lengths"),
    [("zh", "你好。我很好。谢", [3, 4]), ("ja", "はい。そう", [3]), ("th", "สวัสดี", [])],
)
def test_languages_without_spaces_have_sentences_too(
    tag: str, text: str, lengths: list[int]
) -> None:
    assert finished(list(text), resolve(tag)) == lengths


def test_a_sentence_without_an_end_ends_after_eighty_words() -> None:
    assert finished([" word"] * 79, resolve("en")) == []
    assert finished([" word"] * 200, resolve("en")) == [80, 80]
    assert finished([" Yes.", *[" word"] * 81], resolve("en")) == [1, 80]
