"""Token ids that denoising needs, from a checkpoint's configuration and tokenizer."""

from __future__ import annotations

from typing import Any, NamedTuple


class SpecialTokens(NamedTuple):
    """Ids of the tokens that denoising treats apart."""

    mask: int
    eos: int | None
    eot: int | None  # end of turn, where the tokenizer has one


END_OF_TURN = "<|eot_id|>"


def special_tokens(hf_config: Any, tokenizer: Any | None) -> SpecialTokens:
    """Read the ids; nothing is assumed about their values.

    Args:
        hf_config: the checkpoint's configuration.
        tokenizer: its tokenizer, or None when the server runs without one.

    Raises:
        ValueError: neither the configuration nor the tokenizer names a mask token.
    """
    mask = getattr(hf_config, "mask_token_id", None)
    if mask is None and tokenizer is not None:
        mask = getattr(tokenizer, "mask_token_id", None)
    if mask is None:
        raise ValueError(
            "the checkpoint names no mask token: config.json has no mask_token_id and the "
            "tokenizer has no mask token; add mask_token_id to config.json"
        )
    eos = getattr(hf_config, "eos_token_id", None)
    if isinstance(eos, list | tuple):  # vLLM makes stop tokens of the others
        eos = next(iter(eos), None)
    if eos is None and tokenizer is not None:
        eos = tokenizer.eos_token_id
    eot = tokenizer.get_vocab().get(END_OF_TURN) if tokenizer is not None else None
    return SpecialTokens(int(mask), None if eos is None else int(eos), eot)
