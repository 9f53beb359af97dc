"""The settings of a training run: frozen structs decoded from one TOML file, unknown fields
refused.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

Positive = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Rate = Annotated[float, Meta(gt=0)]


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sizes of the network, named as LLaDA's ``config.json`` names them."""

    d_model: Positive
    n_layers: Positive
    n_heads: Positive
    n_kv_heads: Positive
    mlp_hidden_size: Positive
    vocab_size: Positive
    rope_theta: Rate = 10000.0
    max_sequence_length: Positive = 512
    rms_norm_eps: Rate = 1e-5
    dropout: Share = 0.0

    def __post_init__(self) -> None:
        if self.d_model % self.n_heads or self.d_model // self.n_heads not in (32, 64, 80, 96, 128):
            raise ValueError(
                f"d_model / n_heads is {self.d_model} / {self.n_heads}; the head dimension must be "
                "32, 64, 80, 96 or 128, the sizes that vLLM's attention kernels know"
            )
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_heads is {self.n_heads} and n_kv_heads {self.n_kv_heads}; "
                "the first must be a multiple of the second"
            )


class RowLengths(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A batch has one row length, drawn from ``row_lengths`` with ``row_weights``, and as many rows
    as ``tokens_per_batch`` holds; so the same question is seen with canvases of many lengths.
    """

    row_lengths: tuple[Positive, ...]
    row_weights: tuple[Rate, ...]
    tokens_per_batch: Positive

    def __post_init__(self) -> None:
        if len(self.row_lengths) != len(self.row_weights):
            raise ValueError(
                f"row_lengths has {len(self.row_lengths)} entries and row_weights "
                f"{len(self.row_weights)}; give one weight a length"
            )


class QuestionData(RowLengths, frozen=True, kw_only=True, tag="questions"):
    """Arithmetic in plain words: a row is a chat prompt, its worked answer and EOS to the end."""


class ChatData(RowLengths, frozen=True, kw_only=True, tag="chat"):
    """Conversations of a JSONL file: a row is a chat prompt, the last reply and EOS to the end.

    A line is ``{"messages": [{"role": ..., "content": ...}, ...]}``, the last turn the assistant's.
    """

    file: str


class TaskData(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="task"):
    """A task of the masking study: a finite training set, gone through in a new order every
    epoch.
    """

    task: Literal["addition", "maze", "listops", "countdown", "sudoku"]
    size: Positive
    examples: Positive
    batch: Positive


class RandomMasking(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="random"):
    """RANDOM; instead, a share of rows is masked as semi-autoregressive decoding leaves them, and a
    share as decoding in the order of the calculation leaves them.
    """

    block_share: Share = 0.0
    chain_share: Share = 0.0
    block_lengths: tuple[Positive, ...] = (8, 16, 32)


class PaplMasking(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="papl"):
    """PAPL: the masks of RANDOM, the loss weighted towards confident positions."""

    alpha: float = 1.0
    tau: Rate = 1.0


class PumaMasking(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="puma"):
    """PUMA: states reached by revealing gold tokens in the order of the model's confidence."""

    stages_start: Positive
    stages_end: Positive
    stages_increment: Positive
    threshold: Share = 0.9


class OptimSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The optimiser and its schedule; steps are optimiser steps."""

    steps: Positive
    learning_rate: Rate
    min_learning_rate: float = 0.0
    warm_up: Natural = 500
    method: Literal["adamw", "muon"] = "adamw"
    muon_learning_rate: Rate = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip: Rate = 1.0
    ema: Share = 0.9999


class RunSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Seeds, precision and how often to write; the intervals are in steps.

    ``start_from`` is the folder of a model that the run begins with, its weights and tokenizer;
    unset: random weights, and the tokenizer of the questions.
    """

    seed: int = 0
    start_from: str | None = None
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    compile: bool = False
    log_every: Positive = 20
    probe_every: Positive = 500
    checkpoint_every: Positive = 500


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that decides a run."""

    model: ModelSettings
    data: QuestionData | ChatData | TaskData
    masking: RandomMasking | PaplMasking | PumaMasking
    optim: OptimSettings
    run: RunSettings = RunSettings()

    def __post_init__(self) -> None:
        masking = self.masking
        chains = isinstance(masking, RandomMasking) and masking.chain_share > 0
        if chains and not isinstance(self.data, QuestionData):
            raise ValueError(
                'chain_share is above 0; only data of type "questions" knows which cells are '
                "computed: set it to 0"
            )


def load_settings(path: Path) -> Settings:
    """Decode a TOML file; ``msgspec.ValidationError`` names the field that is wrong."""
    return msgspec.toml.decode(path.read_bytes(), type=Settings)
