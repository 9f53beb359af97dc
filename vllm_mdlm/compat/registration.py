"""What every vLLM process must know of our architectures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vllm_mdlm.compat.wrapping import wrap

if TYPE_CHECKING:
    from transformers import PretrainedConfig
    from vllm.config import ModelConfig, VllmConfig


SUPPORTED = "0.32."


def serves_our_model(model_config: ModelConfig | None) -> bool:
    """Whether an engine serves one of our architectures."""
    from vllm_mdlm import ARCHITECTURES

    if model_config is None:
        return False
    return any(name in ARCHITECTURES for name in model_config.architectures or ())


def register_config(config_class: type[PretrainedConfig]) -> None:
    """Read checkpoints of this model type without `--trust-remote-code`."""
    from transformers import AutoConfig

    AutoConfig.register(config_class.model_type, config_class, exist_ok=True)


def install() -> None:
    """Architecture table and model runner choice; safe to call more than once."""
    import vllm
    from vllm.logger import init_logger
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from vllm_mdlm import ARCHITECTURES
    from vllm_mdlm.config import DenoisingConfig

    logger = init_logger(__name__)
    if not vllm.__version__.startswith(SUPPORTED):
        logger.warning(
            "vllm-mdlm is made for vLLM %s*, this is %s; see docs/compatibility.md.",
            SUPPORTED,
            vllm.__version__,
        )
    for name in ARCHITECTURES:
        MODELS_CONFIG_MAP[name] = DenoisingConfig
    _choose_model_runner_v2()


def _choose_model_runner_v2() -> None:
    """Without Triton vLLM chooses Model Runner V1 and refuses V2; ours run V2 on a CPU all the
    same, with the kernel bodies of `cpu_kernels`."""
    import vllm.envs as envs
    from vllm.config import VllmConfig
    from vllm.triton_utils import HAS_TRITON

    if HAS_TRITON:
        return
    upstream = VllmConfig.use_v2_model_runner
    assert isinstance(upstream, property)
    chosen = upstream.fget
    assert chosen is not None
    if getattr(chosen, "__mdlm_shim__", False):
        return

    def use_v2_model_runner(self: VllmConfig) -> bool:
        if serves_our_model(self.model_config) and envs.VLLM_USE_V2_MODEL_RUNNER is None:
            return True
        return bool(chosen(self))

    def without_triton_check(original: Callable[..., None]) -> Callable[..., None]:
        def _validate_v2_model_runner(self: VllmConfig) -> None:
            if not serves_our_model(self.model_config):
                return original(self)
            unsupported = self._get_v2_model_runner_unsupported_features()
            if unsupported:
                raise ValueError(f"Model Runner V2 does not yet support: {', '.join(unsupported)}")
            return None

        return _validate_v2_model_runner

    use_v2_model_runner.__mdlm_shim__ = True
    VllmConfig.use_v2_model_runner = property(use_v2_model_runner)
    wrap(VllmConfig, "_validate_v2_model_runner", without_triton_check)


def load_tokenizer(model_config: ModelConfig) -> Any:
    """The tokenizer that the server uses."""
    from vllm.tokenizers.registry import cached_tokenizer_from_config

    return cached_tokenizer_from_config(model_config)


def is_default_token_budget(budget: int, vllm_config: VllmConfig) -> bool:
    """Whether a token budget is one that vLLM chose by itself."""
    from vllm.engine.arg_utils import EngineArgs

    defaults, _ = EngineArgs.get_batch_defaults(vllm_config.parallel_config.world_size)
    return budget in defaults.values()
