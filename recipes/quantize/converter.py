"""The linear layers of a LLaDA as int8, for compressed_tensors to write file by file."""

from __future__ import annotations

import torch
from compressed_tensors.compressors.naive_quantized import IntQuantizationCompressor
from compressed_tensors.config import CompressionFormat
from compressed_tensors.quantization import (
    QuantizationConfig,
    QuantizationStatus,
    preset_name_to_scheme,
)
from compressed_tensors.quantization.utils import calculate_qparams
from torch import Tensor

SCHEME = preset_name_to_scheme("W8A8", ["Linear"])
"""Weights with a scale per output channel, activations with one per token when they come."""

LINEARS = ("q_proj", "k_proj", "v_proj", "attn_out", "ff_proj", "up_proj", "ff_out")
HEAD = "model.transformer.ff_out"


def linear_weights(layers: int) -> frozenset[str]:
    """Published tensor names of what is rounded: every linear of the blocks."""
    blocks = (f"model.transformer.blocks.{layer}" for layer in range(layers))
    return frozenset(f"{block}.{linear}.weight" for block in blocks for linear in LINEARS)


def round_to_nearest(weight: Tensor) -> dict[str, Tensor]:
    """`weight`, [out, in] int8, and `weight_scale`, [out, 1] float32, of a float [out, in]."""
    wide = weight.float()
    low, high = wide.aminmax(dim=1, keepdim=True)
    scale, _ = calculate_qparams(low, high, SCHEME.weights)
    state = {"weight": wide, "weight_scale": scale}
    rounded: dict[str, Tensor] = IntQuantizationCompressor.compress(state, SCHEME)
    return rounded


class Int8:
    """Rounds the tensors of the given names, and leaves the others as they are: a `Converter` of
    compressed_tensors.

    Args:
        names: published names of [out, in] weights.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names

    def validate(self, tensors: dict[str, Tensor]) -> None:
        """Check the tensors of one file before anything is written.

        Raises:
            ValueError: a tensor to be rounded holds integers, infinities or NaN.
        """
        for name in self.names & tensors.keys():
            tensor = tensors[name]
            if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
                raise ValueError(
                    f"{name} must hold finite numbers of a floating dtype to be rounded, got "
                    f"{tensor.dtype}"
                )

    def process(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors to write in the place of one file's, which is emptied on the way."""
        written: dict[str, Tensor] = {}
        for name in list(tensors):
            tensor = tensors.pop(name)
            if name not in self.names:
                written[name] = tensor
                continue
            module = name.removesuffix(".weight")
            parts = round_to_nearest(tensor)
            written |= {f"{module}.{part}": value for part, value in parts.items()}
        return written

    def create_config(self) -> QuantizationConfig:
        """What config.json says of it."""
        return QuantizationConfig(
            config_groups={"group_0": SCHEME},
            format=CompressionFormat.int_quantized.value,
            quantization_status=QuantizationStatus.COMPRESSED,
            ignore=[HEAD],
        )

    def get_dependencies(self, weight_name: str) -> set[str]:
        """No tensor needs another one."""
        return set()
