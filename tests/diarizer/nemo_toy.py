"""A tiny Sortformer of NeMo that has learnt nothing, and what NeMo says with it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from nemo.collections.asr.models import SortformerEncLabelModel
from omegaconf import OmegaConf

from services.common.audio import FloatArray
from services.common.timeline import SAMPLE_RATE_HZ
from services.diarizer.engines import nemo_sortformer
from services.diarizer.engines.nemo_sortformer import NemoSortformer
from services.diarizer.engines.sortformer import Preset, Sortformer

WIDTH = 64
_CONFIG = {
    "sample_rate": SAMPLE_RATE_HZ,
    "max_num_of_spks": 4,
    "streaming_mode": True,
    "model_defaults": {"fc_d_model": WIDTH, "tf_d_model": 32},
    "preprocessor": {
        "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
        "normalize": "NA",
        "window_size": 0.025,
        "window_stride": 0.01,
        "features": 128,
        "n_fft": 512,
    },
    "encoder": {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder",
        "feat_in": 128,
        "n_layers": 2,
        "d_model": WIDTH,
        "subsampling": "dw_striding",
        "subsampling_factor": 8,
        "subsampling_conv_channels": 16,
        "ff_expansion_factor": 2,
        "n_heads": 4,
        "conv_kernel_size": 9,
    },
    "transformer_encoder": {
        "_target_": (
            "nemo.collections.asr.modules.transformer.transformer_encoders.TransformerEncoder"
        ),
        "num_layers": 2,
        "hidden_size": 32,
        "inner_size": 64,
        "num_attention_heads": 4,
    },
    "sortformer_modules": {
        "_target_": "nemo.collections.asr.modules.sortformer_modules.SortformerModules",
        "num_spks": 4,
        "fc_d_model": WIDTH,
        "tf_d_model": 32,
    },
    "loss": {"_target_": "nemo.collections.asr.losses.bce_loss.BCELoss"},
}


def save(path: Path, heard: FloatArray, **config: object) -> Path:
    """Make a model whose speakers come and go by chance in a recording; write it as NeMo does."""
    torch.manual_seed(0)
    model: Any = SortformerEncLabelModel(OmegaConf.create({**_CONFIG, **config})).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 2 * parameter[0].numel() ** -0.5)
    logits = torch.from_numpy(_streamed(model, heard, Preset(6, 7))).logit()
    last = model.sortformer_modules.single_hidden_to_spks
    mean, spread = logits.mean(dim=0), logits.std(dim=0) / 2
    last.bias.data = (last.bias - mean) / spread
    last.weight.data /= spread[:, None]
    model.save_to(str(path))
    return path


def load(path: Path, *, look_ahead: int) -> Sortformer:
    network = NemoSortformer(path, device="cpu", compute_type="float32", threads=1)
    return Sortformer(network, network.preset(look_ahead), active=0.5)


def streamed(path: Path, heard: FloatArray, preset: Preset) -> FloatArray:
    """(frames, speakers) what NeMo itself says of a recording, chunk by chunk.

    The first chunk is shorter: it and what follows it are as long as so many others without.
    """
    return _streamed(SortformerEncLabelModel.restore_from(str(path)).eval(), heard, preset)


def _streamed(model: Any, heard: FloatArray, preset: Preset) -> FloatArray:
    model.async_streaming = True
    modules = model.sortformer_modules
    modules.spkcache_len = nemo_sortformer.CACHE_FRAMES
    modules.fifo_len = nemo_sortformer.FIFO_FRAMES
    modules.spkcache_update_period = nemo_sortformer.UPDATE_FRAMES
    # What the last window of a chunk lacks otherwise.
    late = torch.from_numpy(np.pad(heard, (40, 0)))[None]
    windows, _ = model.preprocessor(input_signal=late, length=torch.tensor([late.shape[1]]))
    state = modules.init_streaming_state(batch_size=1, async_streaming=True)
    said = torch.zeros(1, 0, modules.n_spk)
    chunk, look_ahead = preset.chunk * 8, preset.look_ahead * 8
    begin, end = 0, chunk - look_ahead % chunk
    while end + look_ahead <= windows.shape[2]:
        left = min(begin, 8)
        heard_now = windows[..., begin - left : end + look_ahead].transpose(1, 2)
        with torch.inference_mode():
            state, said = model.forward_streaming_step(
                processed_signal=heard_now,
                processed_signal_length=torch.tensor([heard_now.shape[1]]),
                streaming_state=state,
                total_preds=said,
                left_offset=left,
                right_offset=look_ahead,
            )
        begin, end = end, end + chunk
    heard_so_far: FloatArray = said[0].numpy()
    return heard_so_far
