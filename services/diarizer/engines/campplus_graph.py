"""CAM++, a network that tells voices apart, as graphs for ONNX Runtime.

It is parted where it forgets when something was said: the trunk turns features into frames, and
the head turns mean and deviation of any choice of frames into an embedding. So sound goes through
the trunk once, whoever turns out to have spoken.

Source: Wang et al., "CAM++: a fast and efficient network for speaker verification using
context-aware masking", 2023.
"""

from collections.abc import Mapping

import numpy as np

from services.common.audio import FloatArray
from services.common.models import ModelError
from services.common.onnx_graph import Graph

NUM_MELS = 80
MAX_FEATURES = 200
"""Longest piece that the trunk takes, in features of 10 ms: its masks look at the means of pieces
of two seconds, and so at that of the whole."""

_BLOCKS = ((12, 1), (24, 2), (16, 2))
"""Layers and dilation of each."""


def trunk_graph(weights: Mapping[str, FloatArray]) -> bytes:
    """``features`` (rows, features, NUM_MELS) -> ``frames`` (rows, features / 2, width).

    Raises:
        ModelError: The weights are not such a network's.

    """
    try:
        graph = _Graph(weights)
        x = graph.input("features", ["rows", "features", NUM_MELS])
        x = graph.op("Transpose", [x], perm=[0, 2, 1])
        x = graph.op("Unsqueeze", [x, graph.constant("one", np.array([1]))])
        x = graph.conv_norm(x, "head.conv1", "head.bn1", relu=True)
        for block in ("head.layer1.0", "head.layer1.1", "head.layer2.0", "head.layer2.1"):
            x = graph.residual(x, block)
        x = graph.conv_norm(x, "head.conv2", "head.bn2", stride=2, relu=True)
        x = graph.op("Reshape", [x, graph.constant("flat", np.array([0, graph.flat, -1]))])
        x = graph.conv_norm(x, "xvector.tdnn.linear", "xvector.tdnn.nonlinear.batchnorm", relu=True)
        for number, (layers, dilation) in enumerate(_BLOCKS, 1):
            for layer in range(1, layers + 1):
                new = graph.dense(x, f"xvector.block{number}.tdnnd{layer}", dilation)
                x = graph.op("Concat", [x, new], axis=1)
            x = graph.norm_relu(x, f"xvector.transit{number}.nonlinear.batchnorm")
            x = graph.op("Conv", [x, graph.weight(f"xvector.transit{number}.linear")])
        x = graph.norm_relu(x, "xvector.out_nonlinear.batchnorm")
        graph.output("frames", graph.op("Transpose", [x], perm=[0, 2, 1]))
        return graph.serialized("trunk")
    except (KeyError, ValueError, IndexError) as error:
        raise ModelError(f"the weights are not CAM++'s: {error}") from error


def head_graph(weights: Mapping[str, FloatArray]) -> bytes:
    """``statistics`` (rows, 2 x width), mean and deviation -> ``embedding`` (rows, size).

    Raises:
        ModelError: The weights are not such a network's.

    """
    try:
        graph = _Graph(weights)
        x = graph.input("statistics", ["rows", "twice"])
        name = "xvector.dense"
        scale, shift = graph.affine(f"{name}.nonlinear.batchnorm")
        matrix = weights[f"{name}.linear.weight"][:, :, 0].T * scale
        x = graph.op("MatMul", [x, graph.constant("matrix", matrix)])
        graph.output("embedding", graph.op("Add", [x, graph.constant("shift", shift)]))
        return graph.serialized("head")
    except (KeyError, ValueError, IndexError) as error:
        raise ModelError(f"the weights are not CAM++'s: {error}") from error


class _Graph(Graph):
    def __init__(self, weights: Mapping[str, FloatArray]) -> None:
        super().__init__()
        self._weights = weights
        width = weights["head.conv2.weight"].shape[0]
        self.flat = width * NUM_MELS // 8

    def weight(self, name: str) -> str:
        return self.constant(f"{name}.weight", self._weights[f"{name}.weight"])

    def affine(self, name: str) -> tuple[FloatArray, FloatArray]:
        """What a batch normalisation multiplies by and adds, once it has been learnt."""
        deviation = np.sqrt(self._weights[f"{name}.running_var"] + np.float32(1e-5))
        scale = self._weights.get(f"{name}.weight", np.float32(1)) / deviation
        shift = self._weights.get(f"{name}.bias", np.float32(0))
        return scale, shift - self._weights[f"{name}.running_mean"] * scale

    def conv_norm(self, x: str, conv: str, norm: str, *, stride: int = 1, relu: bool) -> str:
        """A convolution that keeps the length in time; ``stride`` is that of frequency."""
        scale, shift = self.affine(norm)
        weight = self._weights[f"{conv}.weight"]
        scaled = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        margin = [size // 2 for size in weight.shape[2:]]
        # The only convolution over time alone that is such a one halves it.
        strides = [stride, 1] if weight.ndim == 4 else [2]
        x = self.op(
            "Conv",
            [x, self.constant(f"{conv}.scaled", scaled), self.constant(f"{conv}.shift", shift)],
            strides=strides,
            pads=[*margin, *margin],
        )
        return self.op("Relu", [x]) if relu else x

    def residual(self, x: str, name: str) -> str:
        shortcut = f"{name}.shortcut"
        parted = f"{shortcut}.0.weight" in self._weights
        stride = 2 if parted else 1
        new = self.conv_norm(x, f"{name}.conv1", f"{name}.bn1", stride=stride, relu=True)
        new = self.conv_norm(new, f"{name}.conv2", f"{name}.bn2", relu=False)
        if parted:
            x = self.conv_norm(x, f"{shortcut}.0", f"{shortcut}.1", stride=stride, relu=False)
        return self.op("Relu", [self.op("Add", [x, new])])

    def norm_relu(self, x: str, name: str) -> str:
        scale, shift = self.affine(name)
        scaled = self.op("Mul", [x, self.constant(f"{name}.scale", scale[:, None])])
        moved = self.op("Add", [scaled, self.constant(f"{name}.shift", shift[:, None])])
        return self.op("Relu", [moved])

    def dense(self, x: str, name: str, dilation: int) -> str:
        x = self.norm_relu(x, f"{name}.nonlinear1.batchnorm")
        scale, shift = self.affine(f"{name}.nonlinear2.batchnorm")
        narrow = self._weights[f"{name}.linear1.weight"] * scale[:, None, None]
        inputs = [x, self.constant(f"{name}.narrow", narrow), self.constant(f"{name}.shift", shift)]
        x = self.op("Relu", [self.op("Conv", inputs)])
        mask = f"{name}.cam_layer"
        local = self.op(
            "Conv",
            [x, self.weight(f"{mask}.linear_local")],
            dilations=[dilation],
            pads=[dilation, dilation],
        )
        # The mean of the whole and the mean of its only piece.
        mean = self.op("ReduceMean", [x, self.constant("last", np.array([-1]))], keepdims=1)
        context = self.op("Add", [mean, mean])
        context = self.op("Relu", [self._biased(context, f"{mask}.linear1")])
        gate = self.op("Sigmoid", [self._biased(context, f"{mask}.linear2")])
        return self.op("Mul", [local, gate])

    def _biased(self, x: str, name: str) -> str:
        bias = self.constant(f"{name}.bias", self._weights[f"{name}.bias"])
        return self.op("Conv", [x, self.weight(name), bias])
