"""The proposed token of every masked position, and the statistics that samplers rank by.

Order, the same for every request:

1. `suppress_eos=logits` removes EOS from the model's distribution, as LLaDA does.
2. Confidence, entropy and margin are taken from that distribution, whole and untempered.
3. The choice excludes the mask token, then applies bias, allowed tokens, bad words and the
   stop tokens that `min_tokens` forbids.
4. Temperature divides; min-p, top-k and top-p cut; the token is drawn (at temperature 0: argmax).
5. `suppress_eos=confidence` lowers the confidence of EOS and EoT after the choice.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from vllm_mdlm.denoise.bad_words import BadWords
from vllm_mdlm.denoise.passes import PassView
from vllm_mdlm.denoise.slots import FLOAT, INT, SUPPRESS_EOS, SlotTable
from vllm_mdlm.denoise.token_rules import TokenRules
from vllm_mdlm.kernels import filter_logits, row_stats
from vllm_mdlm.kernels.noise import row_keys
from vllm_mdlm.spec import SpecialTokens


class Proposal(NamedTuple):
    """Per logits row; N rows."""

    token: torch.Tensor  # [N] int64
    logprob: torch.Tensor  # [N] float32, nats, untempered
    confidence: torch.Tensor  # [N] float32, probability that ranks the position
    entropy: torch.Tensor | None  # [N] float32, nats
    margin: torch.Tensor | None  # [N] float32


def propose(
    logits: torch.Tensor,
    view: PassView,
    table: SlotTable,
    rules: TokenRules,
    bad_words: BadWords,
    all_token_ids: torch.Tensor,
    tokens: SpecialTokens,
    needs: frozenset[str],
) -> Proposal:
    """Propose a token at every masked position of the active blocks.

    Args:
        logits: [N, V] in the model's dtype; `suppress_eos=logits` modifies it.
        view: the pass.
        table: state of every slot.
        rules: token rules of every slot.
        bad_words: words of several tokens of every slot.
        all_token_ids: [S, max_len] prompt and canvas, by slot.
        tokens: special token ids.
        needs: statistics that the samplers of this batch read.
    """
    block_length = view.positions.shape[1]
    request = view.rows // block_length
    ints = view.ints[request]
    canvas_positions = view.positions.flatten()[view.rows] - ints[:, INT["prompt_len"]]
    suppress_eos = table.host.suppress_eos[view.slots_np]
    if tokens.eos is not None and (suppress_eos == SUPPRESS_EOS["logits"]).any():
        suppressed = ints[:, INT["suppress_eos"]] == SUPPRESS_EOS["logits"]
        logits[:, tokens.eos].masked_fill_(suppressed, float("-inf"))
    choice = logits.clone()
    choice[:, tokens.mask] = float("-inf")
    if rules.has_rules[view.slots_np].any():
        choice = rules.apply(choice, view.slots[request], canvas_positions)
    if bad_words.has_words[view.slots_np].any():
        unforbidden = choice.clone()
        bad_words.forbid(choice, view, all_token_ids)
        # Allowed tokens that are all bad words here: the request must go on all the same.
        stuck = choice.amax(dim=1) == float("-inf")
        choice = torch.where(stuck.unsqueeze(1), unforbidden, choice)
    noise_keys, temperature, drawn = None, None, None
    if table.host.draws[view.slots_np].any():
        floats = table.floats[view.slots][request]
        temperature = floats[:, FLOAT["temperature"]]
        drawn = (temperature > 0).nonzero().squeeze(1)
        noise_keys = row_keys(ints[:, INT["seed"]], canvas_positions, ints[:, INT["block_pass"]])
        if table.host.filters[view.slots_np].any():
            choice = filter_logits(
                choice,
                temperature,
                floats[:, FLOAT["min_p"]],
                floats[:, FLOAT["top_k"]],
                floats[:, FLOAT["top_p"]],
            )
    stats = row_stats(
        logits,
        choice,
        noise_keys=noise_keys,
        temperature=temperature,
        drawn_rows=drawn,
        need_entropy="entropy" in needs,
        need_margin="margin" in needs,
    )
    ranked = torch.where(ints[:, INT["position_first"]].bool(), stats.top_logprob, stats.logprob)
    confidence = ranked.exp()
    if (suppress_eos == SUPPRESS_EOS["confidence"]).any():
        confidence = _suppress_eos_confidence(
            logits, stats.token, confidence, ints, temperature, tokens
        )
    return Proposal(stats.token, stats.logprob, confidence, stats.entropy, stats.margin)


def _suppress_eos_confidence(
    logits: torch.Tensor,
    token: torch.Tensor,
    confidence: torch.Tensor,
    ints: torch.Tensor,
    temperature: torch.Tensor | None,
    tokens: SpecialTokens,
) -> torch.Tensor:
    """LLaDA's `confidence_eos_eot_inf`: the probability of the chosen token when EoT, and at
    temperature 0 EOS too, are removed from the distribution; 0 for those tokens themselves.

    LLaDA removes EOS from a tensor that is the logits only at temperature 0.
    """
    rows = (ints[:, INT["suppress_eos"]] == SUPPRESS_EOS["confidence"]).nonzero().squeeze(1)
    kept = logits[rows].float()
    if tokens.eos is not None:
        greedy = torch.ones_like(rows, dtype=torch.bool)
        if temperature is not None:
            greedy = temperature[rows] == 0
        kept[:, tokens.eos].masked_fill_(greedy, float("-inf"))
    if tokens.eot is not None:
        kept[:, tokens.eot] = float("-inf")
    probability = kept.softmax(dim=1).gather(1, token[rows].unsqueeze(1)).squeeze(1)
    return confidence.index_copy(0, rows, probability)
