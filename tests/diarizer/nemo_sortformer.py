"""The Sortformer of NeMo, with weights that have learnt nothing.

``test_nemo_sortformer.py`` runs this where NeMo is installed.
"""

import asyncio
import json
import signal
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from services.common.audio import FloatArray
from services.common.channel import open_channel, serves
from services.common.errors import CheckpointError, DeviceError
from services.common.models import ModelError
from services.common.timeline import samples
from services.diarizer.config import Settings
from services.diarizer.diarizer import Memory, Step
from services.diarizer.engines.choice import load_engine
from services.diarizer.engines.nemo_sortformer import (
    CACHE_FRAMES,
    FIFO_FRAMES,
    UPDATE_FRAMES,
    NemoCache,
    NemoSortformer,
)
from services.diarizer.engines.sortformer import FRAME_SAMPLES, Preset, Sortformer
from services.diarizer.engines.sortformer_memory import SortformerMemory
from tests.diarizer import nemo_toy
from tests.diarizer.harness import FINISH, advanced, converse, cut, found, opening, step_of
from tests.diarizer.test_process import SERVICE, running
from voxmesh.diarizer.v1 import diarizer_pb2_grpc as rpc

PRESETS = [(7, Preset(6, 7)), (12, Preset(6, 7)), (6, Preset(3, 1)), (0, Preset(3, 1))]


@pytest.fixture(scope="module")
def long(call: FloatArray, reader: FloatArray) -> FloatArray:
    """Enough that the cache is made anew twice: first after 27 s."""
    return np.concatenate([call, reader])[: samples(40)]


def cache_of(memory: Memory) -> NemoCache:
    assert isinstance(memory, SortformerMemory)
    assert isinstance(memory.cache, NemoCache)
    return memory.cache


@pytest.mark.parametrize(("look_ahead", "preset"), PRESETS)
def test_a_look_ahead_chooses_the_calmest_way_of_streaming_that_is_no_later(
    look_ahead: int, preset: Preset, nemo_path: Path
) -> None:
    network = NemoSortformer(nemo_path, device="cpu", compute_type="float32", threads=1)
    assert network.preset(look_ahead) == preset


@pytest.mark.parametrize(("look_ahead", "preset"), PRESETS[:3:2])
def test_it_says_what_nemo_says_of_the_same_chunks(
    look_ahead: int, preset: Preset, nemo_path: Path, long: FloatArray
) -> None:
    """Through a cache that has been filled and made anew."""
    engine = nemo_toy.load(nemo_path, look_ahead=look_ahead)
    assert engine.step_samples == preset.chunk * FRAME_SAMPLES
    expected = nemo_toy.streamed(nemo_path, long, preset)
    memory, findings = advanced(engine, long, len(long) // engine.step_samples)
    assert len(cache_of(memory).embeds) == CACHE_FRAMES
    assert memory.num_frames > FIFO_FRAMES + 2 * UPDATE_FRAMES
    said: list[FloatArray] = []
    for finding in findings:
        assert isinstance(finding.memory, SortformerMemory)
        decided = finding.edges[1:] <= finding.memory.settled_sample
        rows = np.zeros((int(decided.sum()), 4), np.float32)
        for number, output in enumerate(finding.memory.outputs):
            rows[:, output] = finding.activity[decided, number]
        said.append(rows)
    assert len(memory.outputs) >= 3
    heard_so_far = np.concatenate(said)
    assert len(heard_so_far) == memory.num_frames <= len(expected)
    expected = np.where(expected >= 0.5, expected, 0)[: memory.num_frames]
    np.testing.assert_allclose(heard_so_far, expected, atol=1e-4)


def step_at(engine: Sortformer, heard: FloatArray, age: int) -> Step:
    """The step of a stream behind so many."""
    memory, _ = advanced(engine, heard, age)
    return step_of(engine, memory, heard, (age + 1) * engine.step_samples)


def step_behind_a_pause(engine: Sortformer, heard: FloatArray, age: int) -> Step:
    """The first in which enough is heard."""
    memory, _ = advanced(engine, heard, age)
    after = engine.paused(memory, len(heard) // 2)
    return step_of(engine, after, heard, after.origin + 2 * engine.step_samples)


def test_streams_of_any_age_share_a_batch(
    nemo_sortformer: Sortformer, long: FloatArray, call: FloatArray, reader: FloatArray
) -> None:
    engine = nemo_sortformer
    batches = [
        # A few frames, as many as go without a cache, a cache that was made anew.
        [step_at(engine, call, 5), step_at(engine, reader, 30), step_at(engine, long, 70)],
        # Nothing is heard before the chunk of who begins; the other hears silence before it.
        [step_at(engine, call, 1), step_behind_a_pause(engine, reader, 40)],
    ]
    [few, _, many], [begins, _] = ([cache_of(step.memory) for step in steps] for steps in batches)
    assert not len(few.embeds)
    assert len(many.embeds) == CACHE_FRAMES
    assert not len(begins.fifo)
    for steps in batches:
        assert len({engine.bucket(step) for step in steps}) == 1
        for step, together in zip(steps, engine.advance(steps), strict=True):
            [alone] = engine.advance([step])
            np.testing.assert_allclose(together.activity, alone.activity, atol=1e-4)
            one, other = cache_of(together.memory), cache_of(alone.memory)
            for name in ("embeds", "probs", "fifo", "silence", "num_silent"):
                np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-4)


def test_a_memory_never_changes(nemo_sortformer: Sortformer, long: FloatArray) -> None:
    """Also where the step makes the cache anew."""
    memory, _ = advanced(nemo_sortformer, long, 55)
    before = memory.dump()
    step = step_of(nemo_sortformer, memory, long, 56 * nemo_sortformer.step_samples)
    [first] = nemo_sortformer.advance([step])
    [second] = nemo_sortformer.advance([step])
    assert memory.dump() == before
    assert first.memory.dump() == second.memory.dump() != before


def test_a_memory_read_again_goes_on_as_if_it_had_not_been_written(
    nemo_sortformer: Sortformer, long: FloatArray
) -> None:
    step = step_at(nemo_sortformer, long, 70)
    [straight] = nemo_sortformer.advance([step])
    data = step.memory.dump()
    [again] = nemo_sortformer.advance([replace(step, memory=nemo_sortformer.load(data))])
    assert (straight.activity == again.activity).all()
    assert straight.memory.dump() == again.memory.dump()


def test_what_a_flush_decided_before_a_pause_is_remembered_behind_it(
    nemo_sortformer: Sortformer, call: FloatArray
) -> None:
    step = step_at(nemo_sortformer, call, 3)
    end = step.end_sample + 2 * FRAME_SAMPLES
    flush = replace(step, audio=call[:end], end_sample=end, look_ahead=0)
    [flushed] = nemo_sortformer.advance([flush])
    assert flushed.memory.settled_sample == end
    behind = nemo_sortformer.paused(flushed.memory, 2 * end)
    assert len(cache_of(behind).fifo) == end // FRAME_SAMPLES
    assert len(cache_of(flushed.memory).fifo) == len(cache_of(step.memory).fifo)


def test_those_who_are_enrolled_have_the_first_numbers(
    nemo_sortformer: Sortformer, call: FloatArray, reader: FloatArray
) -> None:
    """Also with more than are kept of what is newest."""
    memory = nemo_sortformer.start((reader[samples(20) :], call[samples(20) : samples(26)]))
    assert len({*memory.outputs}) == 2
    assert len(cache_of(memory).embeds) == UPDATE_FRAMES
    [finding] = nemo_sortformer.advance(
        [step_of(nemo_sortformer, memory, call, 2 * nemo_sortformer.step_samples)]
    )
    assert isinstance(finding.memory, SortformerMemory)
    assert finding.memory.outputs[:2] == memory.outputs


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"fifo": lambda fifo: fifo / 0}, "no number"),
        ({"embeds": lambda embeds: embeds[:, 1:]}, "not this model's"),
        ({"fifo": lambda fifo: fifo.repeat(3, 1)}, "not this model's"),
        ({"probs": lambda probs: probs[1:]}, "not this model's"),
        ({"num_silent": lambda num_silent: num_silent[None]}, "not this model's"),
    ],
)
def test_a_memory_that_is_not_of_this_model_is_refused(
    damage: dict[str, Callable[[torch.Tensor], torch.Tensor]],
    says: str,
    nemo_sortformer: Sortformer,
    call: FloatArray,
) -> None:
    memory, _ = advanced(nemo_sortformer, call, 40)
    cache = cache_of(memory)
    assert len(cache.embeds)
    [(name, change)] = damage.items()
    broken = replace(cache, **{name: change(getattr(cache, name)).contiguous()})
    with pytest.raises(CheckpointError, match=says):
        nemo_sortformer.load(replace(memory, cache=broken).dump())
    with pytest.raises(CheckpointError, match="is damaged"):
        nemo_sortformer.load(memory.dump()[:-1])


def test_what_is_kept_is_float32_whatever_it_computes_with(
    nemo_path: Path, call: FloatArray
) -> None:
    caches = []
    for compute_type in ("float32", "bfloat16"):
        network = NemoSortformer(nemo_path, device="cpu", compute_type=compute_type, threads=1)
        engine = Sortformer(network, network.preset(7), active=0.5)
        caches.append(cache_of(advanced(engine, call, 40)[0]))
    one, other = caches
    assert one.embeds.dtype == other.embeds.dtype == torch.float32
    assert len(one.embeds) == len(other.embeds) > 0
    assert (one.embeds != other.embeds).any()
    # Eight bits of mantissa.
    assert (one.embeds - other.embeds).norm() < 0.02 * one.embeds.norm()


def test_settings_choose_it_by_what_they_name(nemo_path: Path, tmp_path: Path) -> None:
    (tmp_path / "toy.nemo").symlink_to(nemo_path)
    for named in (nemo_path, tmp_path):
        engine, workers = load_engine(Settings(model=str(named)))
        assert (engine.name, workers) == ("toy/6+7", 1)
    assert load_engine(Settings(model=str(nemo_path), latency_ms=200))[0].name == "toy/3+1"


def test_numbers_that_this_device_does_not_compute_with_are_refused(nemo_path: Path) -> None:
    with pytest.raises(DeviceError, match="does not run this model in float16 on cpu"):
        NemoSortformer(nemo_path, device="cpu", compute_type="float16", threads=1)


@pytest.mark.parametrize("content", [b"", b"x" * 10_000])
def test_a_file_that_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "toy.nemo"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="holds no Sortformer"):
        load_engine(Settings(model=str(path)))


def test_a_model_of_another_kind_is_refused(
    nemo_path: Path, tmp_path: Path, call: FloatArray
) -> None:
    whole = nemo_toy.save(tmp_path / "whole.nemo", call[: samples(9)], streaming_mode=False)
    with pytest.raises(ModelError, match="holds no Sortformer that streams"):
        load_engine(Settings(model=str(whole)))
    with tarfile.open(nemo_path) as archive:
        archive.extractall(tmp_path / "parts", filter="data")
    weights = tmp_path / "parts" / "model_weights.ckpt"
    state = torch.load(weights)
    state.pop("encoder.layers.0.norm_out.bias")
    torch.save(state, weights)
    with tarfile.open(tmp_path / "part.nemo", "w") as archive:
        archive.add(tmp_path / "parts", ".")
    with pytest.raises(ModelError, match="holds no Sortformer"):
        load_engine(Settings(model=str(tmp_path / "part.nemo")))


async def test_a_replica_serves_it(nemo_path: Path, call: FloatArray, tmp_path: Path) -> None:
    heard = (call[: samples(5)] * 32767).astype("<i2").tobytes()
    async with (
        running(tmp_path, nemo_path) as (process, address),
        open_channel(address) as channel,
    ):
        # NeMo takes ten seconds to be imported, and more where others are at work.
        assert await serves(channel, SERVICE, timeout_s=120)
        stub = rpc.DiarizerServiceStub(channel)
        responses = await converse(stub, [opening(), *cut(heard, 1600), FINISH])
        assert len({speaker for speaker, *_ in found(responses)}) >= 2
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        logs, code = await asyncio.wait_for(
            asyncio.gather(process.stderr.read(), process.wait()), 30
        )
    assert code == 0
    # Nothing but log lines: NeMo writes nothing past them.
    lines = [json.loads(line) for line in logs.splitlines()]
    assert [lines[0]["event"], lines[0]["engine"]] == ["model loaded", "toy/6+7"]
