"""Engine defaults and refusals for our architectures, applied when vLLM is configured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import torch
import vllm.envs as envs
from vllm.config import CompilationMode
from vllm.logger import init_logger
from vllm.model_executor.models.config import VerifyAndUpdateConfig
from vllm.platforms import current_platform

from vllm_mdlm import compat
from vllm_mdlm.admission import DEFAULTS_KEY, NOT_HONOURED, server_defaults
from vllm_mdlm.errors import ParameterError
from vllm_mdlm.params import decode_defaults
from vllm_mdlm.spec import special_tokens

if TYPE_CHECKING:
    from vllm.config import ModelConfig, VllmConfig

logger = init_logger(__name__)

SCHEDULER = "vllm_mdlm.denoise.scheduler.SpanScheduler"

CPU_KERNELS = "mdlm_cpu"
"""Provider under which `models.cpu_ops` offers vLLM's own CPU kernels."""

CPU_CACHE_SHARE = 0.25
"""Share of the free memory that the cache may take by default on a CPU."""

CPU_BLOCK_TOKENS = 128
"""Tokens of a cache block on a CPU, at most, where none is asked for."""

EXPERT_QUANTIZATION = ("experts_int8", "int8_per_channel_weight_only")
"""Of vLLM's `--quantization`, what changes the layers of experts alone."""


class DenoisingConfig(VerifyAndUpdateConfig):
    """The entry of our architectures in vLLM's table of per-architecture configuration."""

    @staticmethod
    def verify_and_update_config(vllm_config: VllmConfig) -> None:
        """Set what denoising needs.

        Raises:
            ValueError: the server was asked for something that cannot work, or a server-wide
                parameter default is wrong.
        """
        _refuse(vllm_config)
        _refuse_ignored(vllm_config)
        _check_defaults(vllm_config)
        _check_sampling_defaults(vllm_config.model_config)
        _set_token_ids(vllm_config.model_config)
        _set_scheduling(vllm_config)
        if current_platform.is_cpu():
            _set_cpu_defaults(vllm_config)
        compat.install_front_end()


def _refuse(vllm_config: VllmConfig) -> None:
    if vllm_config.parallel_config.pipeline_parallel_size > 1:
        raise ValueError(
            "masked diffusion models do not run with pipeline parallelism, got "
            f"--pipeline-parallel-size {vllm_config.parallel_config.pipeline_parallel_size}; "
            "use --tensor-parallel-size"
        )
    scheduler = vllm_config.scheduler_config
    if scheduler.scheduler_cls not in (None, SCHEDULER):
        raise ValueError(
            f"masked diffusion models bring their own scheduler, got --scheduler-cls "
            f"{scheduler.scheduler_cls!r}; leave it out"
        )
    if scheduler.async_scheduling:
        raise ValueError(
            "masked diffusion models have no asynchronous scheduling; leave out --async-scheduling"
        )
    parallel = vllm_config.parallel_config
    if max(parallel.decode_context_parallel_size, parallel.prefill_context_parallel_size) > 1:
        raise ValueError(
            "masked diffusion models do not run with context parallelism, got "
            f"--decode-context-parallel-size {parallel.decode_context_parallel_size} and "
            f"--prefill-context-parallel-size {parallel.prefill_context_parallel_size}; use "
            "--tensor-parallel-size"
        )
    if vllm_config.speculative_config is not None:
        raise ValueError(
            "masked diffusion models have no speculative decoding; leave out --speculative-config"
        )


def _refuse_ignored(vllm_config: VllmConfig) -> None:
    """Options that would change nothing, or that hand what one canvas left to another."""
    model, cache = vllm_config.model_config, vllm_config.cache_config
    reuse = "keys and values depend on the canvas, and cannot be used again"
    asked = {
        "--kv-transfer-config": (vllm_config.kv_transfer_config is not None, reuse),
        "--kv-offloading-size": (cache.kv_offloading_size is not None, reuse),
        "--diffusion-config": (
            vllm_config.diffusion_config is not None,
            "every request says how its canvas is decided (docs/parameters.md)",
        ),
        "--logits-processors": (
            bool(model.logits_processors),
            "these models bring their own sampler, which calls none",
        ),
        f"--quantization {model.quantization}": (
            model.quantization in EXPERT_QUANTIZATION,
            "it is for the layers of experts, and these have none",
        ),
        "--logprobs-mode": (
            model.logprobs_mode != "raw_logprobs",
            "log-probabilities are those of the model, untempered (raw_logprobs)",
        ),
    }
    for option, (is_asked, reason) in asked.items():
        if is_asked:
            raise ValueError(
                f"masked diffusion models do not run with {option}: {reason}; leave it out"
            )


def _check_defaults(vllm_config: VllmConfig) -> None:
    try:
        decode_defaults(server_defaults(vllm_config))
    except ParameterError as error:
        raise ValueError(f"--additional-config {DEFAULTS_KEY!r}: {error}") from None


def _check_sampling_defaults(model_config: ModelConfig) -> None:
    for name, value in model_config.get_diff_sampling_param().items():
        neutral = NOT_HONOURED.get(name, value)
        if value != neutral:
            raise ValueError(
                f"generation_config.json or --override-generation-config sets {name}={value!r}, "
                "which masked diffusion models do not honour; start with --generation-config "
                f"vllm, or override it by {neutral}"
            )


def _set_token_ids(model_config: ModelConfig) -> None:
    tokenizer = None if model_config.skip_tokenizer_init else compat.load_tokenizer(model_config)
    tokens = special_tokens(model_config.hf_config, tokenizer)
    model_config.hf_config.mask_token_id = tokens.mask
    model_config.hf_config.eos_token_id = tokens.eos
    model_config.hf_config.eot_token_id = tokens.eot


def _set_cpu_defaults(vllm_config: VllmConfig) -> None:
    """What lets a server start with no further flag on a machine that does other things too.

    vLLM would reserve nearly all memory for the cache, and compile with Inductor, which takes
    longer than it saves here and needs a C++ compiler. Both can be asked for.
    """
    cache = vllm_config.cache_config
    if cache.kv_cache_memory_bytes is None and not envs.VLLM_CPU_KVCACHE_SPACE:
        wanted = vllm_config.scheduler_config.max_num_seqs * _context_bytes(vllm_config)
        room = int(psutil.virtual_memory().available * CPU_CACHE_SHARE)
        cache.kv_cache_memory_bytes = max(min(wanted, room), _context_bytes(vllm_config))
        logger.info(
            "KV cache: %.2f GiB (--kv-cache-memory-bytes sets another size).",
            cache.kv_cache_memory_bytes / 2**30,
        )
    if vllm_config.compilation_config.mode is None:
        vllm_config.compilation_config.mode = CompilationMode.NONE
        priority = vllm_config.kernel_config.ir_op_priority
        priority.rms_norm = priority.rms_norm or [CPU_KERNELS]
        priority.fused_add_rms_norm = priority.fused_add_rms_norm or [CPU_KERNELS]


def _context_bytes(vllm_config: VllmConfig) -> int:
    """Cache that one request of the whole context takes on a rank, with a spare block."""
    model, parallel = vllm_config.model_config, vllm_config.parallel_config
    tokens = model.max_model_len + 2 * CPU_BLOCK_TOKENS
    heads = model.get_num_kv_heads(parallel)
    assert isinstance(model.dtype, torch.dtype)
    width = model.get_head_size() * model.dtype.itemsize
    return int(2 * model.get_num_layers(parallel) * heads * width * tokens)


def _set_scheduling(vllm_config: VllmConfig) -> None:
    scheduler = vllm_config.scheduler_config
    scheduler.scheduler_cls = SCHEDULER
    scheduler.async_scheduling = False
    # A pass reads its whole span at once, so a span is never split.
    scheduler.enable_chunked_prefill = False
    scheduler.long_prefill_token_threshold = 0
    logger.info("A pass reads its whole span: no chunked prefill, no prefix caching.")
    # The K/V of the prompt depend on the canvas: nothing of one request serves another.
    vllm_config.cache_config.enable_prefix_caching = False
    context = vllm_config.model_config.max_model_len
    if scheduler.max_num_batched_tokens < context and compat.is_default_token_budget(
        scheduler.max_num_batched_tokens, vllm_config
    ):
        logger.info(
            "Raising max_num_batched_tokens from %d to %d, so that one pass holds the context.",
            scheduler.max_num_batched_tokens,
            context,
        )
        scheduler.max_num_batched_tokens = context
