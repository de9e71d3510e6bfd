"""The networks as graphs, on small random weights, against the same networks in torch."""

# mypy: allow-subclassing-any
# Types of torch are not looked at, so that there are none where it is not installed.

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from services.common.audio import FloatArray
from services.common.models import ModelError
from services.common.onnx_session import open_session
from services.diarizer.engines.campplus_graph import head_graph, trunk_graph
from services.diarizer.engines.embedder import Embedder
from services.diarizer.engines.segmentation_graph import segmentation_graph
from services.diarizer.engines.segmenter import Segmenter


class SincFilters(nn.Module):
    """Band-pass filters of learnt frequencies, as cosines and as sines."""

    def __init__(self, num_filters: int) -> None:
        super().__init__()
        half = num_filters // 2
        edges = torch.linspace(60, 7000, half + 1)
        # Frequencies may be learnt to be negative; what counts is how large they are.
        signs = torch.where(torch.arange(half) % 2 == 0, 1.0, -1.0)
        self.low_hz_ = nn.Parameter((edges[:-1] * signs)[:, None])
        self.band_hz_ = nn.Parameter((edges.diff() * signs)[:, None])
        self.register_buffer("n_", 2 * torch.pi * torch.arange(-125.0, 0)[None] / 16_000)
        window = 0.54 - 0.46 * torch.cos(2 * torch.pi * torch.arange(125) / 251)
        self.register_buffer("window_", window)

    def forward(self) -> Any:
        low = 50 + self.low_hz_.abs()
        high = (low + 50 + self.band_hz_.abs()).clamp(50, 8000)
        seconds = torch.arange(-125.0, 126)[None] / 16_000
        window = torch.cat([self.window_, torch.ones(1), self.window_.flip(0)])
        # An ideal band-pass, sin(w n) / (pi n) between two frequencies, and its Hilbert transform.
        rest = torch.where(seconds == 0, 1.0, torch.pi * seconds)
        turned_low, turned_high = 2 * torch.pi * low * seconds, 2 * torch.pi * high * seconds
        cosines = (turned_high.sin() - turned_low.sin()) / rest
        cosines = torch.where(seconds == 0, 2 * (high - low), cosines)
        sines = (turned_low.cos() - turned_high.cos()) / rest
        both = torch.cat([cosines * window, sines * window])
        return (both / (2 * torch.cat([high - low] * 2)))[:, None]


class Sinc(nn.Module):
    def __init__(self, num_filters: int) -> None:
        super().__init__()
        self.filterbank = SincFilters(num_filters)

    def forward(self, x: Any) -> Any:
        return functional.conv1d(x, self.filterbank(), stride=10).abs()


class SincNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wav_norm1d = nn.InstanceNorm1d(1, affine=True)
        self.conv1d = nn.ModuleList([Sinc(8), nn.Conv1d(8, 6, 5), nn.Conv1d(6, 6, 5)])
        self.norm1d = nn.ModuleList([nn.InstanceNorm1d(size, affine=True) for size in (8, 6, 6)])

    def forward(self, x: Any) -> Any:
        x = self.wav_norm1d(x)
        for conv, norm in zip(self.conv1d, self.norm1d, strict=True):
            x = functional.leaky_relu(norm(functional.max_pool1d(conv(x), 3, 3)))
        return x


class PyanNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sincnet = SincNet()
        self.lstm = nn.LSTM(6, 10, num_layers=4, bidirectional=True, batch_first=True)
        self.linear = nn.ModuleList([nn.Linear(20, 9), nn.Linear(9, 9)])
        self.classifier = nn.Linear(9, 7)

    def forward(self, x: Any) -> Any:
        x, _ = self.lstm(self.sincnet(x).transpose(1, 2))
        for linear in self.linear:
            x = functional.leaky_relu(linear(x))
        return functional.log_softmax(self.classifier(x), dim=-1)


class Norm(nn.Module):
    """Batch normalisation, by the name that it has in the weights."""

    def __init__(self, size: int, *, relu: bool = True, affine: bool = True) -> None:
        super().__init__()
        self.batchnorm = nn.BatchNorm1d(size, affine=affine)
        self.relu = relu

    def forward(self, x: Any) -> Any:
        x = self.batchnorm(x)
        return functional.relu(x) if self.relu else x


class Residual(nn.Module):
    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, (stride, 1), 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride > 1:
            conv = nn.Conv2d(width, width, 1, (stride, 1), bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(width))

    def forward(self, x: Any) -> Any:
        new = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(new)) + self.shortcut(x))


class Front(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(Residual(width, 2), Residual(width, 1))
        self.layer2 = nn.Sequential(Residual(width, 2), Residual(width, 1))
        self.conv2 = nn.Conv2d(width, width, 3, (2, 1), 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Any) -> Any:
        x = self.layer2(self.layer1(functional.relu(self.bn1(self.conv1(x[:, None])))))
        return functional.relu(self.bn2(self.conv2(x))).flatten(1, 2)


class Mask(nn.Module):
    """Context-aware masking: of the whole, and of pieces of a hundred frames."""

    def __init__(self, size: int, out: int, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(size, out, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(size, size // 2, 1)
        self.linear2 = nn.Conv1d(size // 2, out, 1)

    def forward(self, x: Any) -> Any:
        pieces = functional.avg_pool1d(x, 100, 100, ceil_mode=True)
        spread = pieces.repeat_interleave(100, dim=-1)[..., : x.shape[-1]]
        context = functional.relu(self.linear1(x.mean(-1, keepdim=True) + spread))
        return self.linear_local(x) * torch.sigmoid(self.linear2(context))


class Dense(nn.Module):
    def __init__(self, size: int, growth: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1 = Norm(size)
        self.linear1 = nn.Conv1d(size, 4 * growth, 1, bias=False)
        self.nonlinear2 = Norm(4 * growth)
        self.cam_layer = Mask(4 * growth, growth, dilation)

    def forward(self, x: Any) -> Any:
        return self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(x))))


class Layer(nn.Module):
    def __init__(self, size: int, out: int, kernel: int = 1, **how: Any) -> None:
        super().__init__()
        self.linear = nn.Conv1d(size, out, kernel, bias=False, **how)
        self.nonlinear = Norm(out)

    def forward(self, x: Any) -> Any:
        return self.nonlinear(self.linear(x))


class Transit(nn.Module):
    def __init__(self, size: int, out: int) -> None:
        super().__init__()
        self.nonlinear = Norm(size)
        self.linear = nn.Conv1d(size, out, 1, bias=False)

    def forward(self, x: Any) -> Any:
        return self.linear(self.nonlinear(x))


class CamPlus(nn.Module):
    def __init__(self, width: int = 4, growth: int = 4, size: int = 12) -> None:
        super().__init__()
        self.head = Front(width)
        layers: dict[str, nn.Module] = {"tdnn": Layer(width * 10, 16, 5, stride=2, padding=2)}
        channels = 16
        for number, (depth, dilation) in enumerate([(12, 1), (24, 2), (16, 2)], 1):
            block = nn.ModuleDict()
            for layer in range(1, depth + 1):
                block[f"tdnnd{layer}"] = Dense(channels, growth, dilation)
                channels += growth
            layers[f"block{number}"] = block
            layers[f"transit{number}"] = Transit(channels, channels // 2)
            channels //= 2
        layers["out_nonlinear"] = Norm(channels)
        dense = Layer(2 * channels, size)
        dense.nonlinear = Norm(size, relu=False, affine=False)
        layers["dense"] = dense
        self.xvector = nn.ModuleDict(layers)

    def frames(self, features: Any) -> Any:
        x = self.xvector["tdnn"](self.head(features.transpose(1, 2)))
        for number in (1, 2, 3):
            for layer in self.xvector[f"block{number}"].values():
                x = torch.cat([x, layer(x)], dim=1)
            x = self.xvector[f"transit{number}"](x)
        return self.xvector["out_nonlinear"](x)

    def forward(self, features: Any) -> Any:
        x = self.frames(features)
        statistics = torch.cat([x.mean(-1), x.std(-1)], dim=-1)
        return self.xvector["dense"](statistics[..., None])[..., 0]


def random_network(make: Callable[[], Any]) -> Any:
    """The network as if it had learnt something."""
    torch.manual_seed(0)
    network = make().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
        if getattr(module, "affine", False):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return network


def weights_of(network: Any) -> dict[str, FloatArray]:
    return {name: tensor.float().numpy() for name, tensor in network.state_dict().items()}


def answer(graph: bytes, **inputs: FloatArray) -> FloatArray:
    found: FloatArray
    [found] = open_session(graph, threads=1).run(None, inputs)
    return found


def noise(*shape: int) -> FloatArray:
    return np.random.default_rng(0).normal(0, 0.3, shape).astype(np.float32)


@pytest.mark.parametrize("num_samples", [1261, 8640, 30_001])
def test_the_segmentation_graph_is_the_network(num_samples: int) -> None:
    network = random_network(PyanNet)
    windows = noise(3, 1, num_samples)
    with torch.inference_mode():
        expected = network(torch.from_numpy(windows)).numpy()
    found = answer(segmentation_graph(weights_of(network)), waveform=windows)
    assert found.shape == ((3, 1 + (num_samples - 991) // 270, 7))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("num_features", [1, 37, 200])
def test_the_trunk_of_camplus_is_the_networks(num_features: int) -> None:
    network = random_network(CamPlus)
    features = noise(2, num_features, 80)
    with torch.inference_mode():
        expected = network.frames(torch.from_numpy(features)).transpose(1, 2).numpy()
    found = answer(trunk_graph(weights_of(network)), features=features)
    assert found.shape[1] == -(-num_features // 2)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_embedder_pools_as_the_network_does(tmp_path: Path) -> None:
    network = random_network(CamPlus)
    path = tmp_path / "campplus.pt"
    torch.save(network.state_dict(), path)
    embedder = Embedder(path, threads=1)
    audio = noise(1, 16_240)
    frames = embedder.frames(audio)
    everything = np.ones((1, frames.shape[1]), bool)
    found = embedder.embed(frames[0], everything)
    with torch.inference_mode():
        x = torch.from_numpy(frames).transpose(1, 2)
        statistics = torch.cat([x.mean(-1), x.std(-1)], dim=-1)
        expected = network.xvector["dense"](statistics[..., None])[..., 0]
        expected = functional.normalize(expected).numpy()
    assert embedder.size == found.shape[1] == 12
    np.testing.assert_allclose(found, expected, atol=1e-4)
    raw = answer(head_graph(weights_of(network)), statistics=statistics.numpy())
    np.testing.assert_allclose(raw / np.linalg.norm(raw), expected, atol=1e-4)


def without(weights: Mapping[str, FloatArray], name: str) -> dict[str, FloatArray]:
    return {key: value for key, value in weights.items() if key != name}


NETWORKS: dict[str, tuple[Callable[[], Any], tuple[Callable[..., bytes], ...]]] = {
    "segmentation": (PyanNet, (segmentation_graph,)),
    "campplus": (CamPlus, (trunk_graph, head_graph)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_other_weights_make_no_graph(name: str) -> None:
    make, graphs = NETWORKS[name]
    [other] = NETWORKS.keys() - {name}
    weights = weights_of(random_network(NETWORKS[other][0]))
    for graph in graphs:
        for wrong in (weights, {}, {"a": np.ones(3, np.float32)}):
            with pytest.raises(ModelError, match="the weights are not"):
                graph(wrong)
    whole = weights_of(random_network(make))
    needed = [
        key
        for key in whole
        if not key.endswith("num_batches_tracked")
        # Unlearnt, they are one and nothing.
        and not ("norm" in key or ".bn" in key or "shortcut" in key)
    ]
    for key in needed[:: len(needed) // 6]:
        with pytest.raises(ModelError, match="the weights are not"):
            [graph(without(whole, key)) for graph in graphs]


@pytest.mark.parametrize("make", [PyanNet, CamPlus])
def test_the_file_of_another_model_is_refused(make: Callable[[], Any], tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    torch.save(random_network(make).state_dict(), path)
    with pytest.raises(ModelError, match="the weights are not"):
        (Embedder if make is PyanNet else Segmenter)(path, threads=1)


def test_a_segmentation_model_for_more_people_is_refused(tmp_path: Path) -> None:
    network = random_network(PyanNet)
    network.classifier = nn.Linear(9, 11)
    path = tmp_path / "weights.bin"
    torch.save(network.state_dict(), path)
    with pytest.raises(ModelError, match="is no segmentation model for 3 people"):
        Segmenter(path, threads=1)
