import pytest
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

from services.common.errors import InvalidRequestError
from services.translator.languages import LANGUAGES, resolve


def test_the_table_holds_flores_200_which_has_two_that_nllb_lacks() -> None:
    codes = {language.code for language in LANGUAGES}
    assert len(codes) == len(LANGUAGES) == 204
    assert codes - set(FAIRSEQ_LANGUAGE_CODES) == {"arb_Latn", "min_Arab"}
    assert set(FAIRSEQ_LANGUAGE_CODES) <= codes


def test_every_language_is_found_by_its_code_its_tag_and_its_name() -> None:
    for language in LANGUAGES:
        for said in (language.code, language.tag, language.name, language.name.upper()):
            assert resolve(said) == language
    assert len({language.tag for language in LANGUAGES}) == 204


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("pt-BR", "por_Latn"),
        ("pt_PT", "por_Latn"),
        ("por", "por_Latn"),
        ("Brazilian Portuguese", "por_Latn"),
        (" english ", "eng_Latn"),
        ("en-US", "eng_Latn"),
        ("zh", "zho_Hans"),
        ("zh-CN", "zho_Hans"),
        ("zh-TW", "zho_Hant"),
        ("zh_HK", "zho_Hant"),
        ("zh-Hant-SG", "zho_Hant"),
        ("cmn", "zho_Hans"),
        ("zh-yue", "yue_Hant"),
        ("Mandarin", "zho_Hans"),
        ("no", "nob_Latn"),
        ("nb-NO", "nob_Latn"),
        ("iw", "heb_Hebr"),
        ("fas", "pes_Arab"),
        ("farsi", "pes_Arab"),
        ("fa-AF", "prs_Arab"),
        ("ara", "arb_Arab"),
        ("ar-EG", "arb_Arab"),
        ("swa", "swh_Latn"),
        ("fil", "tgl_Latn"),
        ("ger", "deu_Latn"),
        ("ks-Deva", "kas_Deva"),
        ("sr-Cyrl", "srp_Cyrl"),
        ("sat_Olck", "sat_Beng"),
    ],
)
def test_a_language_is_what_people_mean(said: str, code: str) -> None:
    assert resolve(said).code == code


@pytest.mark.parametrize("said", ["", "xx", "Klingon", "en-Cyrl", "p t", "sr-Latn", "-"])
def test_what_nobody_speaks_is_refused(said: str) -> None:
    with pytest.raises(InvalidRequestError, match="no language is called"):
        resolve(said)


def test_some_languages_are_written_without_spaces() -> None:
    assert not any(resolve(tag).is_spaced for tag in ("zh", "zh-TW", "ja", "th", "my", "km", "lo"))
    assert all(resolve(tag).is_spaced for tag in ("en", "ko", "hi", "ar", "vi"))
