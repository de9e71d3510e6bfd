"""The Sortformer, with weights that have learnt nothing: all that does not depend on them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.common.audio import FloatArray
from services.common.errors import CheckpointError, DeviceError, InvalidRequestError
from services.common.models import ModelError
from services.common.timeline import samples
from services.diarizer.config import Settings
from services.diarizer.diarizer import Wishes
from services.diarizer.engines.choice import load_engine
from services.diarizer.engines.nemotron import Nemotron, NemotronCache
from services.diarizer.engines.sortformer import FRAME_SAMPLES, Preset, Sortformer
from services.diarizer.engines.sortformer_memory import SortformerMemory
from tests.diarizer import toy
from tests.diarizer.harness import advanced, follow, running, settled, step_of, tell

PRESETS = [(4, Preset(9, 4)), (12, Preset(9, 4)), (3, Preset(6, 2)), (1, Preset(3, 1))]


@pytest.mark.parametrize(("look_ahead", "preset"), PRESETS)
def test_a_look_ahead_chooses_the_calmest_way_of_streaming_that_is_no_later(
    look_ahead: int, preset: Preset, nemotron_path: Path
) -> None:
    network = Nemotron(nemotron_path, device="cpu", compute_type="float32", threads=1)
    assert network.preset(look_ahead) == preset


@pytest.mark.parametrize(("look_ahead", "preset"), PRESETS[1:])
def test_it_says_what_transformers_says_of_the_same_chunks(
    look_ahead: int, preset: Preset, nemotron_path: Path, call: FloatArray
) -> None:
    """Through a cache that has been filled and compressed several times."""
    engine = toy.load(nemotron_path, look_ahead=look_ahead)
    heard = call[: samples(14)]
    expected = toy.streamed(nemotron_path, heard, preset)
    memory, found = advanced(engine, heard, len(heard) // engine.step_samples)
    assert isinstance(memory.cache, NemotronCache)
    assert memory.cache.compressed
    assert len(memory.cache.embeds) == toy.CACHE_FRAMES
    said: list[FloatArray] = []
    outputs: tuple[int, ...] = ()
    for finding in found:
        assert isinstance(finding.memory, SortformerMemory)
        outputs = finding.memory.outputs
        decided = finding.edges[1:] <= finding.memory.settled_sample
        rows = np.zeros((int(decided.sum()), 8), np.float32)
        for number, output in enumerate(outputs):
            rows[:, output] = finding.activity[decided, number]
        said.append(rows)
    assert len(outputs) >= 3
    heard_so_far = np.concatenate(said)
    expected = np.where(expected >= 0.5, expected, 0)
    assert len(heard_so_far) == memory.num_frames * 8 <= len(expected)
    np.testing.assert_allclose(heard_so_far, expected[: len(heard_so_far)], atol=1e-4)


def test_streams_of_any_age_share_a_batch(
    sortformer: Sortformer, call: FloatArray, reader: FloatArray
) -> None:
    """One begins, one has a cache, one has a cache that was compressed."""
    heard, ages = [call, reader, call[samples(3) :]], [1, 3, 12]
    steps = [
        step_of(
            sortformer,
            advanced(sortformer, audio, age)[0],
            audio,
            (age + 1) * sortformer.step_samples,
        )
        for audio, age in zip(heard, ages, strict=True)
    ]
    assert len({sortformer.bucket(step) for step in steps}) == 1
    for step, together in zip(steps, sortformer.advance(steps), strict=True):
        [alone] = sortformer.advance([step])
        assert isinstance(together.memory, SortformerMemory)
        assert isinstance(alone.memory, SortformerMemory)
        assert together.memory.outputs == alone.memory.outputs
        np.testing.assert_allclose(together.activity, alone.activity, atol=1e-4)
        one, other = together.memory.cache, alone.memory.cache
        assert isinstance(one, NemotronCache)
        assert isinstance(other, NemotronCache)
        assert one.embeds.shape == other.embeds.shape
        np.testing.assert_allclose(one.fifo, other.fifo, atol=1e-4)
        np.testing.assert_allclose(one.embeds, other.embeds, atol=1e-4)


def test_a_memory_never_changes(sortformer: Sortformer, call: FloatArray) -> None:
    memory, _ = advanced(sortformer, call, 9)
    before = memory.dump()
    step = step_of(sortformer, memory, call, 10 * sortformer.step_samples)
    [first] = sortformer.advance([step])
    [second] = sortformer.advance([step])
    assert memory.dump() == before
    assert first.memory.dump() == second.memory.dump() != before


def test_a_memory_read_again_goes_on_as_if_it_had_not_been_written(
    sortformer: Sortformer, call: FloatArray
) -> None:
    memory, _ = advanced(sortformer, call, 12)
    step = step_of(sortformer, memory, call, 13 * sortformer.step_samples)
    [straight] = sortformer.advance([step])
    [again] = sortformer.advance([replace(step, memory=sortformer.load(memory.dump()))])
    assert (straight.activity == again.activity).all()
    assert straight.memory.dump() == again.memory.dump()


async def test_what_a_flush_decided_before_a_pause_is_remembered_behind_it(
    sortformer: Sortformer, call: FloatArray
) -> None:
    """The network goes on with all frames, those of the last and shorter chunk too."""
    end = 3 * sortformer.step_samples + 5 * FRAME_SAMPLES
    memory, _ = advanced(sortformer, call, 3)
    flush = replace(step_of(sortformer, memory, call, end), look_ahead=0)
    [flushed] = sortformer.advance([flush])
    assert isinstance(flushed.memory, SortformerMemory)
    assert flushed.memory.settled_sample == end
    assert flushed.memory.cache is memory.cache
    behind = sortformer.paused(flushed.memory, 4 * sortformer.step_samples)
    assert isinstance(behind.cache, NemotronCache)
    heard_frames = len(behind.cache.embeds) + len(behind.cache.fifo)
    assert heard_frames == end // FRAME_SAMPLES == memory.num_frames + 9


@pytest.mark.parametrize("wishes", [Wishes(1), Wishes(2), Wishes(20, 2)])
async def test_what_a_speaker_too_many_says_is_ascribed_to_the_likeliest_of_the_others(
    wishes: Wishes, sortformer: Sortformer, call: FloatArray
) -> None:
    heard = call[: samples(12)]
    async with running(sortformer) as batcher:
        free = settled(await tell(batcher, [heard]))
        bound = settled(await tell(batcher, [heard], wishes=wishes))
    most = wishes.num_speakers or wishes.max_speakers
    assert len({speaker for speaker, *_ in free}) > most
    assert {speaker for speaker, *_ in bound} == set(range(1, most + 1))
    spoken = [np.zeros(len(heard), bool), np.zeros(len(heard), bool)]
    for mask, spans in zip(spoken, (free, bound), strict=True):
        for _, first, end in spans:
            mask[first:end] = True
    assert (spoken[0] == spoken[1]).all()


async def test_those_who_are_enrolled_have_the_first_numbers(
    sortformer: Sortformer, call: FloatArray, reader: FloatArray
) -> None:
    memory = sortformer.start((reader[: samples(6)], call[: samples(6)]))
    assert len(set(memory.outputs)) == 2
    assert settled(await follow(sortformer)) == []
    [finding] = sortformer.advance([step_of(sortformer, memory, call, sortformer.step_samples)])
    assert isinstance(finding.memory, SortformerMemory)
    assert finding.memory.outputs[:2] == memory.outputs
    with pytest.raises(InvalidRequestError, match="speaker 2 is enrolled with less than 1 s"):
        sortformer.start((reader[: samples(6)], reader[: samples(0.5)]))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[:20], "20 bytes of speakers"),
        (lambda data: data[:-1], "is damaged"),
        (lambda data: data[:24] + b"\x02\x09\x08" + data[26:], "none of the model's"),
        (lambda data: b"\xff" * 8 + data[8:], "what nobody has heard"),
    ],
)
def test_a_damaged_memory_is_refused(
    damage: object, says: str, sortformer: Sortformer, call: FloatArray
) -> None:
    assert callable(damage)
    memory, _ = advanced(sortformer, call, 4)
    with pytest.raises(CheckpointError, match=says):
        sortformer.load(damage(memory.dump()))


def test_a_memory_with_something_that_is_no_number_is_refused(
    sortformer: Sortformer, call: FloatArray
) -> None:
    memory, _ = advanced(sortformer, call, 4)
    assert isinstance(memory.cache, NemotronCache)
    broken = replace(memory.cache, fifo=memory.cache.fifo / 0)
    with pytest.raises(CheckpointError, match="no number"):
        sortformer.load(replace(memory, cache=broken).dump())


def test_a_memory_of_another_model_is_refused(sortformer: Sortformer, call: FloatArray) -> None:
    memory, _ = advanced(sortformer, call, 4)
    assert isinstance(memory.cache, NemotronCache)
    narrow = replace(memory.cache, embeds=memory.cache.embeds[:, :-1].contiguous())
    with pytest.raises(CheckpointError, match="not this model's"):
        sortformer.load(replace(memory, cache=narrow).dump())


def test_settings_choose_it_by_what_the_folder_holds(nemotron_path: Path) -> None:
    chosen = Settings(model=str(nemotron_path), latency_ms=200)
    engine, workers = load_engine(chosen)
    assert engine.name == "nemotron-toy/6+2"
    assert workers == 1
    assert load_engine(Settings(model=str(nemotron_path), workers=2))[1] == 2


def test_numbers_that_this_device_does_not_compute_with_are_refused(nemotron_path: Path) -> None:
    with pytest.raises(DeviceError, match="does not run this model in float16 on cpu"):
        Nemotron(nemotron_path, device="cpu", compute_type="float16", threads=1)


def test_the_online_engine_refuses_a_gpu(model_path: Path) -> None:
    with pytest.raises(ModelError, match="runs on CPUs alone"):
        load_engine(Settings(model=str(model_path), device="cuda"))


def test_a_folder_without_the_weights_is_refused(nemotron_path: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((nemotron_path / "config.json").read_bytes())
    with pytest.raises(ModelError, match="holds no Nemotron 3 Diarization"):
        load_engine(Settings(model=str(tmp_path)))
