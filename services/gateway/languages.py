"""Languages by code and by English name, as clients write them."""

_TABLE = """
af:afrikaans am:amharic ar:arabic as:assamese az:azerbaijani ba:bashkir be:belarusian
bg:bulgarian bn:bengali bo:tibetan br:breton bs:bosnian ca:catalan cs:czech cy:welsh
da:danish de:german el:greek en:english es:spanish et:estonian eu:basque fa:persian
fi:finnish fo:faroese fr:french gl:galician gu:gujarati ha:hausa haw:hawaiian he:hebrew
hi:hindi hr:croatian hu:hungarian hy:armenian id:indonesian
is:icelandic it:italian ja:japanese jw:javanese ka:georgian kk:kazakh km:khmer
kn:kannada ko:korean la:latin lb:luxembourgish ln:lingala lo:lao lt:lithuanian
lv:latvian mg:malagasy mi:maori mk:macedonian ml:malayalam mn:mongolian mr:marathi
ms:malay mt:maltese my:myanmar ne:nepali nl:dutch nn:nynorsk no:norwegian oc:occitan
pa:punjabi pl:polish ps:pashto pt:portuguese ro:romanian ru:russian sa:sanskrit
sd:sindhi si:sinhala sk:slovak sl:slovenian sn:shona so:somali sq:albanian sr:serbian
su:sundanese sv:swedish sw:swahili ta:tamil te:telugu tg:tajik th:thai tk:turkmen
tl:tagalog tr:turkish tt:tatar uk:ukrainian ur:urdu uz:uzbek vi:vietnamese yi:yiddish
yo:yoruba yue:cantonese zh:chinese
"""

NAMES: dict[str, str] = dict(entry.split(":") for entry in _TABLE.split())
"""Code -> English name in lower case. The codes are those of Whisper: ISO 639-1 where it has one,
but ``jw`` for Javanese."""
NAMES["ht"] = "haitian creole"

_OTHER_NAMES = {
    "burmese": "my",
    "castilian": "es",
    "farsi": "fa",
    "filipino": "tl",
    "flemish": "nl",
    "haitian": "ht",
    "letzeburgesch": "lb",
    "mandarin": "zh",
    "moldavian": "ro",
    "moldovan": "ro",
    "panjabi": "pa",
    "pushto": "ps",
    "sinhalese": "si",
    "valencian": "ca",
}
_OTHER_CODES = {"jv": "jw", "nb": "no", "fil": "tl", "iw": "he", "in": "id", "cmn": "zh"}
_BY_NAME = {name: code for code, name in NAMES.items()} | _OTHER_NAMES


def language_code(written: str) -> str | None:
    """The code of a language written as ``en``, ``en-US``, ``en_us``, ``English``...

    Returns:
        The code; "" for nothing and ``auto``, which ask for detection; None for what is unknown.

    """
    text = written.strip().lower()
    if text in {"", "auto"}:
        return ""
    if text in _BY_NAME:
        return _BY_NAME[text]
    code = text.replace("_", "-").partition("-")[0]
    code = _OTHER_CODES.get(code, code)
    return code if code in NAMES else None


def english_name(code: str) -> str:
    """The English name of a language, in lower case; a code without one stands for itself."""
    return NAMES.get(code, code)
