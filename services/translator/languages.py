"""The languages of FLORES-200, and what people call them.

Codes: NLLB Team, "No Language Left Behind", 2022; names: CLDR. A tag is BCP-47's, with the script
where a language has two and it is the rarer one.
"""

from dataclasses import dataclass

from services.common.errors import InvalidRequestError

_TABLE = """
ace_Arab ace-Arab Acehnese (Arabic)
ace_Latn ace Acehnese
acm_Arab acm Mesopotamian Arabic
acq_Arab acq Ta'izzi-Adeni Arabic
aeb_Arab aeb Tunisian Arabic
afr_Latn af Afrikaans
ajp_Arab ajp South Levantine Arabic
aka_Latn ak Akan
als_Latn sq Albanian
amh_Ethi am Amharic
apc_Arab apc North Levantine Arabic
arb_Arab ar Arabic
arb_Latn ar-Latn Arabic (Latin)
ars_Arab ars Najdi Arabic
ary_Arab ary Moroccan Arabic
arz_Arab arz Egyptian Arabic
asm_Beng as Assamese
ast_Latn ast Asturian
awa_Deva awa Awadhi
ayr_Latn ay Aymara
azb_Arab azb South Azerbaijani
azj_Latn az Azerbaijani
bak_Cyrl ba Bashkir
bam_Latn bm Bambara
ban_Latn ban Balinese
bel_Cyrl be Belarusian
bem_Latn bem Bemba
ben_Beng bn Bengali
bho_Deva bho Bhojpuri
bjn_Arab bjn-Arab Banjar (Arabic)
bjn_Latn bjn Banjar
bod_Tibt bo Tibetan
bos_Latn bs Bosnian
bug_Latn bug Buginese
bul_Cyrl bg Bulgarian
cat_Latn ca Catalan, Valencian
ceb_Latn ceb Cebuano
ces_Latn cs Czech
cjk_Latn cjk Chokwe
ckb_Arab ckb Central Kurdish, Sorani
crh_Latn crh Crimean Tatar, Crimean
cym_Latn cy Welsh
dan_Latn da Danish
deu_Latn de German
dik_Latn din Dinka
dyu_Latn dyu Dyula
dzo_Tibt dz Dzongkha
ell_Grek el Greek
eng_Latn en English
epo_Latn eo Esperanto
est_Latn et Estonian
eus_Latn eu Basque
ewe_Latn ee Ewe
fao_Latn fo Faroese
fij_Latn fj Fijian
fin_Latn fi Finnish
fon_Latn fon Fon
fra_Latn fr French
fur_Latn fur Friulian
fuv_Latn ff Fulfulde
gaz_Latn om Oromo
gla_Latn gd Scottish Gaelic, Gaelic
gle_Latn ga Irish
glg_Latn gl Galician
grn_Latn gn Guarani
guj_Gujr gu Gujarati
hat_Latn ht Haitian Creole, Haitian
hau_Latn ha Hausa
heb_Hebr he Hebrew
hin_Deva hi Hindi
hne_Deva hne Chhattisgarhi
hrv_Latn hr Croatian
hun_Latn hu Hungarian
hye_Armn hy Armenian
ibo_Latn ig Igbo
ilo_Latn ilo Iloko
ind_Latn id Indonesian
isl_Latn is Icelandic
ita_Latn it Italian
jav_Latn jv Javanese
jpn_Jpan ja Japanese
kab_Latn kab Kabyle
kac_Latn kac Kachin
kam_Latn kam Kamba
kan_Knda kn Kannada
kas_Arab ks Kashmiri
kas_Deva ks-Deva Kashmiri (Devanagari)
kat_Geor ka Georgian
kaz_Cyrl kk Kazakh
kbp_Latn kbp Kabiye
kea_Latn kea Kabuverdianu
khk_Cyrl mn Mongolian
khm_Khmr km Khmer
kik_Latn ki Kikuyu
kin_Latn rw Kinyarwanda
kir_Cyrl ky Kyrgyz
kmb_Latn kmb Kimbundu
kmr_Latn ku Kurdish, Kurmanji
knc_Arab knc-Arab Central Kanuri (Arabic)
knc_Latn knc Central Kanuri
kon_Latn kg Kongo
kor_Hang ko Korean
lao_Laoo lo Lao
lij_Latn lij Ligurian
lim_Latn li Limburgish, Limburgan
lin_Latn ln Lingala
lit_Latn lt Lithuanian
lmo_Latn lmo Lombard
ltg_Latn ltg Latgalian
ltz_Latn lb Luxembourgish, Letzeburgesch
lua_Latn lua Luba-Lulua
lug_Latn lg Ganda, Luganda
luo_Latn luo Luo
lus_Latn lus Mizo
lvs_Latn lv Latvian
mag_Deva mag Magahi
mai_Deva mai Maithili
mal_Mlym ml Malayalam
mar_Deva mr Marathi
min_Arab min-Arab Minangkabau (Arabic)
min_Latn min Minangkabau
mkd_Cyrl mk Macedonian
mlt_Latn mt Maltese
mni_Beng mni Manipuri, Meitei
mos_Latn mos Mossi
mri_Latn mi Maori
mya_Mymr my Burmese, Myanmar
nld_Latn nl Dutch, Flemish
nno_Latn nn Norwegian Nynorsk
nob_Latn nb Norwegian Bokmål, Norwegian
npi_Deva ne Nepali
nso_Latn nso Northern Sotho, Sepedi
nus_Latn nus Nuer
nya_Latn ny Nyanja, Chichewa
oci_Latn oc Occitan
ory_Orya or Odia, Oriya
pag_Latn pag Pangasinan
pan_Guru pa Punjabi, Panjabi
pap_Latn pap Papiamento, Papiamentu
pbt_Arab ps Pashto, Pushto
pes_Arab fa Persian, Farsi
plt_Latn mg Malagasy
pol_Latn pl Polish
por_Latn pt Portuguese, Brazilian Portuguese
prs_Arab prs Dari
quy_Latn qu Quechua
ron_Latn ro Romanian, Moldavian
run_Latn rn Rundi, Kirundi
rus_Cyrl ru Russian
sag_Latn sg Sango
san_Deva sa Sanskrit
sat_Beng sat Santali, sat_Olck
scn_Latn scn Sicilian
shn_Mymr shn Shan
sin_Sinh si Sinhala, Sinhalese
slk_Latn sk Slovak
slv_Latn sl Slovenian
smo_Latn sm Samoan
sna_Latn sn Shona
snd_Arab sd Sindhi
som_Latn so Somali
sot_Latn st Southern Sotho
spa_Latn es Spanish, Castilian
srd_Latn sc Sardinian
srp_Cyrl sr Serbian
ssw_Latn ss Swati
sun_Latn su Sundanese
swe_Latn sv Swedish
swh_Latn sw Swahili
szl_Latn szl Silesian
tam_Taml ta Tamil
taq_Latn taq Tamasheq
taq_Tfng taq-Tfng Tamasheq (Tifinagh)
tat_Cyrl tt Tatar
tel_Telu te Telugu
tgk_Cyrl tg Tajik
tgl_Latn tl Tagalog, Filipino
tha_Thai th Thai
tir_Ethi ti Tigrinya
tpi_Latn tpi Tok Pisin
tsn_Latn tn Tswana
tso_Latn ts Tsonga
tuk_Latn tk Turkmen
tum_Latn tum Tumbuka
tur_Latn tr Turkish
twi_Latn tw Twi
tzm_Tfng tzm Central Atlas Tamazight
uig_Arab ug Uyghur, Uighur
ukr_Cyrl uk Ukrainian
umb_Latn umb Umbundu
urd_Arab ur Urdu
uzn_Latn uz Uzbek
vec_Latn vec Venetian
vie_Latn vi Vietnamese
war_Latn war Waray
wol_Latn wo Wolof
xho_Latn xh Xhosa
ydd_Hebr yi Yiddish
yor_Latn yo Yoruba
yue_Hant yue Cantonese
zho_Hans zh Chinese, Mandarin, Simplified Chinese
zho_Hant zh-Hant Traditional Chinese
zsm_Latn ms Malay
zul_Latn zu Zulu
"""
"""Code, tag, names; a name may be another code of the same language."""

_UNSPACED = frozenset({"Hans", "Hant", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt"})
_SCRIPT_OF_REGION = {("zh", region): "Hant" for region in ("tw", "hk", "mo")}
_SAME_TAG = dict(
    line.split()
    for line in """
no nb
iw he
in id
ji yi
jw jv
mo ro
fil tl
cmn zh
zh-yue yue
fa-af prs
ara ar
fas fa
per fa
msa ms
may ms
swa sw
nor nb
lav lv
mon mn
mlg mg
ori or
uzb uz
yid yi
sqi sq
alb sq
aze az
kur ku
pus ps
orm om
aym ay
que qu
nep ne
ful ff
chi zh
fre fr
ger de
dut nl
gre el
ice is
baq eu
arm hy
geo ka
mac mk
rum ro
slo sk
wel cy
cze cs
bur my
tib bo
mao mi
""".strip().splitlines()
)
"""What is also said for a tag: older codes, ISO 639-2, groups of which one language is meant."""


@dataclass(frozen=True, slots=True)
class Language:
    """A language in one script."""

    code: str
    """Of FLORES-200, such as ``por_Latn``."""
    tag: str
    """Of BCP-47, such as ``pt``."""
    name: str
    """English."""

    @property
    def is_spaced(self) -> bool:
        """Whether words are written apart."""
        return self.code.partition("_")[2] not in _UNSPACED


def _rows() -> dict[str, Language]:
    found: dict[str, Language] = {}
    for line in _TABLE.strip().splitlines():
        code, tag, names = line.split(" ", 2)
        first, *others = names.split(", ")
        language = Language(code, tag, first)
        for said in (code, tag, first, *others):
            found[said.lower()] = language
    return found


_BY_NAME = _rows()

LANGUAGES = tuple(dict.fromkeys(_BY_NAME.values()))
"""All of them, by code."""


def resolve(said: str) -> Language:
    """The language that people mean by a name, an ISO 639 code, a BCP-47 tag or a FLORES-200 code.

    A region is no other language, unless it writes another script: ``pt-BR`` is Portuguese,
    ``zh-TW`` is Chinese in traditional characters.

    Raises:
        InvalidRequestError: Nobody calls one of them so.

    """
    wanted = said.strip().lower()
    if found := _BY_NAME.get(wanted):
        return found
    tag = wanted.replace("_", "-")
    tag = _SAME_TAG.get(tag, tag)
    base, *rest = tag.split("-")
    base = _SAME_TAG.get(base, base)
    script = next((part for part in rest if len(part) == 4), "")
    script = script or next(
        (_SCRIPT_OF_REGION[base, part] for part in rest if (base, part) in _SCRIPT_OF_REGION), ""
    )
    language = _BY_NAME.get(base) or _of_three_letters(base)
    if language is not None and script:
        written = f"{language.code[:3]}_{script.title()}"
        language = _BY_NAME.get(written.lower())
    if language is None:
        raise InvalidRequestError(
            f"no language is called {said!r}: say it as English does, or as a tag such as pt-BR"
        )
    return language


def _of_three_letters(code: str) -> Language | None:
    """A language by ISO 639-3, in the script it is mostly written in."""
    found = [language for language in LANGUAGES if language.code.startswith(f"{code}_")]
    usual = [language for language in found if "-" not in language.tag]
    return next(iter(usual or found), None)
