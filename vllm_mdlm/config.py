"""Engine defaults and refusals for our architectures, applied when vLLM is configured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm.logger import init_logger
from vllm.model_executor.models.config import VerifyAndUpdateConfig

from vllm_mdlm import compat
from vllm_mdlm.admission import DEFAULTS_KEY, server_defaults
from vllm_mdlm.errors import ParameterError
from vllm_mdlm.params import decode_defaults
from vllm_mdlm.spec import special_tokens

if TYPE_CHECKING:
    from vllm.config import ModelConfig, VllmConfig

logger = init_logger(__name__)


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
        _check_defaults(vllm_config)
        _set_token_ids(vllm_config.model_config)
        _set_scheduling(vllm_config)
        compat.install_front_end()


def _refuse(vllm_config: VllmConfig) -> None:
    if vllm_config.parallel_config.pipeline_parallel_size > 1:
        raise ValueError(
            "masked diffusion models do not run with pipeline parallelism, got "
            f"--pipeline-parallel-size {vllm_config.parallel_config.pipeline_parallel_size}; "
            "use --tensor-parallel-size"
        )
    if vllm_config.speculative_config is not None:
        raise ValueError(
            "masked diffusion models have no speculative decoding; leave out --speculative-config"
        )


def _check_defaults(vllm_config: VllmConfig) -> None:
    try:
        decode_defaults(server_defaults(vllm_config))
    except ParameterError as error:
        raise ValueError(f"--additional-config {DEFAULTS_KEY!r}: {error}") from None


def _set_token_ids(model_config: ModelConfig) -> None:
    tokenizer = None if model_config.skip_tokenizer_init else compat.load_tokenizer(model_config)
    tokens = special_tokens(model_config.hf_config, tokenizer)
    model_config.hf_config.mask_token_id = tokens.mask
    model_config.hf_config.eot_token_id = tokens.eot


def _set_scheduling(vllm_config: VllmConfig) -> None:
    scheduler = vllm_config.scheduler_config
    scheduler.scheduler_cls = "vllm_mdlm.denoise.scheduler.SpanScheduler"
    scheduler.async_scheduling = False
    # A pass reads its whole span at once, so a span is never split.
    scheduler.enable_chunked_prefill = False
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
