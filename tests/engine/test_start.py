"""What a server is asked for at its start: honoured, or refused there and not by a request."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.engine.arg_utils import EngineArgs

from vllm_mdlm.admission import plan_request, server_rules
from vllm_mdlm.errors import ParameterError


def configured(folder: Path, **options: Any) -> VllmConfig:
    """What `vllm serve folder` configures before it starts an engine."""
    return EngineArgs(str(folder), max_model_len=512, **options).create_engine_config()


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("--kv-transfer-config", {"kv_connector": "ExampleConnector", "kv_role": "kv_both"}),
        ("--kv-offloading-size", 1.0),
        ("--diffusion-config", {"canvas_length": 64}),
        ("--logits-processors", ["a.module:Processor"]),
        ("--logprobs-mode", "processed_logprobs"),
        ("--quantization", "experts_int8"),
        ("--quantization", "int8_per_channel_weight_only"),
        ("repetition_penalty=1.1", {"repetition_penalty": 1.1}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_that_no_request_can_have_are_refused(
    message: str, options: Any, checkpoint: Callable[[str], Path]
) -> None:
    name = message.removeprefix("--").replace("-", "_")
    name = name if message.startswith("--") else "override_generation_config"
    with pytest.raises(ValueError, match=message):
        configured(checkpoint("mha"), **{name: options})


def test_context_parallelism_is_refused(checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match="--decode-context-parallel-size 2"):
        configured(checkpoint("gqa"), tensor_parallel_size=4, decode_context_parallel_size=2)


def test_a_limit_on_long_prompts_splits_no_span(checkpoint: Callable[[str], Path]) -> None:
    scheduler = configured(checkpoint("mha"), long_prefill_token_threshold=32).scheduler_config
    assert scheduler.long_prefill_token_threshold == 0


@pytest.mark.parametrize(
    ("options", "own", "message"),
    [
        ({"max_num_scheduled_tokens": 64}, {}, "max-num-scheduled-tokens.*at most 44"),
        ({"max_num_scheduled_tokens": 96}, {"cfg_scale": 1.0}, "half of what.*at most 28"),
        ({"max_num_active_seqs": 1}, {"cfg_scale": 1.0}, "two places"),
        ({"watermark": 0.5}, {"cfg_scale": 1.0}, "half of what.*at most 44"),
        ({"data_parallel_size": 2}, {"cfg_scale": 1.0}, "half of what.*at most 12"),
    ],
    ids=str,
)
def test_a_request_that_could_never_run_is_refused(
    options: dict[str, Any],
    own: dict[str, Any],
    message: str,
    checkpoint: Callable[[str], Path],
) -> None:
    config = configured(checkpoint("mha"), **options)
    config.cache_config.num_gpu_blocks, config.cache_config.block_size = 9, 32
    with pytest.raises(ParameterError, match=message):
        plan_request(SamplingParams(max_tokens=64, extra_args=own), 20, server_rules(config))


def test_logprobs_of_the_whole_vocabulary_are_refused(checkpoint: Callable[[str], Path]) -> None:
    rules = server_rules(configured(checkpoint("mha"), max_logprobs=-1))
    with pytest.raises(ParameterError, match="logprobs: got -1"):
        plan_request(SamplingParams(max_tokens=8, logprobs=-1), 20, rules)


def test_overrides_take_the_published_names(checkpoint: Callable[[str], Path]) -> None:
    names = {"n_layers": 1, "max_sequence_length": 2048}
    for overrides in (names, {"num_hidden_layers": 1, "max_position_embeddings": 2048}):
        config = configured(checkpoint("mha"), hf_overrides=overrides)
        assert config.model_config.get_total_num_hidden_layers() == 1
        assert config.model_config.hf_config.max_position_embeddings == 2048


def test_several_eos_tokens(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "several"
    shutil.copytree(checkpoint("mha"), folder)
    content = json.loads((folder / "config.json").read_text())
    eos = content["eos_token_id"]
    (folder / "config.json").write_text(json.dumps(content | {"eos_token_id": [eos, 65]}))
    assert configured(folder).model_config.hf_config.eos_token_id == eos
