"""What every engine promises, whatever it runs on."""

import pytest

from services.common.errors import InvalidRequestError
from services.translator.engines.firefox import Firefox
from services.translator.engines.nllb import Nllb
from services.translator.engines.nllb_nllw import Nllw
from services.translator.languages import resolve
from services.translator.policies.align_att import AlignAtt
from services.translator.policies.local_agreement import LocalAgreement
from services.translator.policies.policy import Policy
from services.translator.policies.wait_k import WaitK
from services.translator.translator import Job, Pair, Translator
from tests.translator import toy
from tests.translator.harness import commits, running, spans, tell, text_of

TEXTS = {
    "en": ["The cat sat on the mat.", "the dog ran and", "The", "And the cat, the dog; the mat?"],
    "pt": ["O gato e o cão.", "o gato", "O", "E o cão e o gato, o gato; o cão?"],
}
ODD = ["...", "3.5 %", "mat" * 60, "the " * 300, "日本", "\u200b", "a\nb", "😀 the cat"]


@pytest.fixture(scope="module")
def firefox() -> Firefox:
    return Firefox()


@pytest.fixture(scope="module")
def nllb_transformers(tmp_path_factory: pytest.TempPathFactory) -> Nllb:
    return toy.on_transformers(toy.save(tmp_path_factory.mktemp("nllb")))


@pytest.fixture(scope="module")
def nllb_ctranslate2(tmp_path_factory: pytest.TempPathFactory) -> Nllb:
    return toy.on_ctranslate2(toy.convert(toy.save(tmp_path_factory.mktemp("nllb"))))


@pytest.fixture(scope="module")
def nllb_nllw(tmp_path_factory: pytest.TempPathFactory) -> Nllw:
    return toy.on_nllw(toy.save(tmp_path_factory.mktemp("nllb")))


@pytest.fixture(params=["firefox", "nllb_ctranslate2", "nllb_transformers", "nllb_nllw"])
def engine(request: pytest.FixtureRequest) -> Translator:
    translator: Translator = request.getfixturevalue(request.param)
    return translator


@pytest.fixture(params=["en>pt", "pt>en"])
def pair(request: pytest.FixtureRequest) -> Pair:
    source, target = request.param.split(">")
    return Pair(resolve(source), resolve(target))


def test_a_batch_says_of_each_text_what_it_would_say_alone(engine: Translator, pair: Pair) -> None:
    jobs = [Job(pair, text) for text in TEXTS[pair.source.tag]]
    assert engine.translate(jobs) == [engine.translate([job])[0] for job in jobs]


def test_no_text_breaks_it_or_makes_it_run_on(engine: Translator, pair: Pair) -> None:
    for text in ODD:
        [made] = engine.translate([Job(pair, text)])
        assert len(made.text) < 20 * len(text) + 200


def test_looks_are_in_order_and_within_the_texts(engine: Translator, pair: Pair) -> None:
    for text in TEXTS[pair.source.tag]:
        [made] = engine.translate([Job(pair, text)])
        ends = [look.end for look in made.looks]
        assert ends == sorted(ends)
        assert not ends or ends[-1] == len(made.text)
        assert all(0 <= look.source < len(text) for look in made.looks)


def test_a_translation_goes_on_behind_its_prefix_if_the_engine_can_be_told(
    engine: Translator, pair: Pair
) -> None:
    text = TEXTS[pair.source.tag][0]
    [free] = engine.translate([Job(pair, text)])
    begun = " ".join(free.text.split()[:2])
    [forced] = engine.translate([Job(pair, text, begun)])
    if engine.forces_prefix:
        assert forced.text.startswith(begun)
    else:
        assert forced == free


def test_pairs_that_it_lacks_are_refused_with_those_it_has(engine: Translator) -> None:
    engine.check(engine.example)
    with pytest.raises(InvalidRequestError, match=r"only: en.*pt"):
        engine.check(Pair(resolve("en"), resolve("sw")))


@pytest.mark.parametrize("policy", [LocalAgreement(2, 0), LocalAgreement(), AlignAtt(), WaitK()])
async def test_a_stream_translates_every_word_once_and_its_successor_goes_on(
    engine: Translator, pair: Pair, policy: Policy
) -> None:
    said = " ".join(TEXTS[pair.source.tag]).split()
    async with running(engine) as batcher:
        events = await tell(batcher, engine, said, policy=policy, pair=pair)
        places = commits(events)
        for place in places[:: max(1, len(places) // 4)]:
            rest = said[place.through_sample // 4000 :]
            resumed = await tell(batcher, engine, rest, policy=policy, pair=pair, resumed=place)
            assert commits(resumed) == places[places.index(place) + 1 :]
    found = spans(events)
    assert [word for first, end in found for word in range(first, end)] == list(range(len(said)))
    assert text_of(events).strip()


def test_both_libraries_say_the_same_of_the_same_weights(
    nllb_ctranslate2: Nllb, nllb_transformers: Nllb, pair: Pair
) -> None:
    """Where they look, too, in a batch of texts and prefixes of different lengths."""
    texts = [*TEXTS[pair.source.tag], *ODD]
    free = nllb_ctranslate2.translate([Job(pair, text) for text in texts])
    assert nllb_transformers.translate([Job(pair, text) for text in texts]) == free
    begun = [" ".join(one.text.split()[:number]) for number, one in enumerate(free)]
    jobs = [Job(pair, *one) for one in zip(texts, begun, strict=True)]
    assert nllb_transformers.translate(jobs) == nllb_ctranslate2.translate(jobs)


def test_nllw_says_the_same_of_the_same_weights_and_prints_nothing(
    nllb_nllw: Nllw, nllb_transformers: Nllb, pair: Pair, capfd: pytest.CaptureFixture[str]
) -> None:
    """P14."""
    jobs = [Job(pair, text) for text in TEXTS[pair.source.tag]]
    ours = [made.text for made in nllb_transformers.translate(jobs)]
    assert [made.text for made in nllb_nllw.translate(jobs)] == ours
    assert capfd.readouterr() == ("", "")
