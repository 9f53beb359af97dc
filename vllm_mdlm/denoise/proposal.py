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

from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from vllm_mdlm.denoise.bad_words import BadWords
from vllm_mdlm.denoise.memory import BlockMemory
from vllm_mdlm.denoise.passes import PassView, rows_of
from vllm_mdlm.denoise.slots import FILTERS, FLOAT, INT, SUPPRESS_EOS, SlotTable, some
from vllm_mdlm.denoise.template_table import TemplateTable
from vllm_mdlm.denoise.token_rules import TokenRules
from vllm_mdlm.kernels import filter_logits, row_stats
from vllm_mdlm.kernels.noise import row_keys
from vllm_mdlm.spec import SpecialTokens

if TYPE_CHECKING:
    from vllm.sampling_params import SamplingParams


class Proposal(NamedTuple):
    """Per logits row; N rows."""

    token: torch.Tensor  # [N] int64
    logprob: torch.Tensor  # [N] float32, nats, untempered
    confidence: torch.Tensor  # [N] float32, probability that ranks the position
    entropy: torch.Tensor | None  # [N] float32, nats
    margin: torch.Tensor | None  # [N] float32
    divergence: torch.Tensor | None  # [N] float32, nats


class Proposer:
    """Draws the proposed tokens of a pass.

    Args:
        table: state of every slot.
        templates: templates by slot.
        tokens: special token ids.
        vocab_size: columns of the logits.
    """

    def __init__(
        self,
        table: SlotTable,
        templates: TemplateTable,
        tokens: SpecialTokens,
        vocab_size: int,
    ) -> None:
        num_slots = table.ints.shape[0]
        self.table = table
        self.templates = templates
        self.tokens = tokens
        self.vocab_size = vocab_size
        self.rules = TokenRules(num_slots, table.device)
        self.bad_words = BadWords(num_slots)
        self.memory = BlockMemory(num_slots, table.device)

    def set(self, slot: int, params: SamplingParams | None, *, compares: bool) -> None:
        """Replace what a slot's request asks of its tokens; None for no request.

        Args:
            slot: index of the slot.
            params: vLLM's sampling parameters.
            compares: the request's sampler reads the divergence between passes.
        """
        self.rules.set(slot, params, self.vocab_size)
        self.bad_words.set(slot, None if params is None else params.bad_words_token_ids)
        self.memory.set(slot, compares)

    def __call__(
        self,
        logits: torch.Tensor,
        view: PassView,
        all_token_ids: torch.Tensor,
        needs: frozenset[str],
    ) -> Proposal:
        """Propose a token at every masked position of the active blocks.

        Args:
            logits: [N, V] in the model's dtype; `suppress_eos=logits` modifies it.
            view: the pass.
            all_token_ids: [S, max_len] prompt and canvas, by slot.
            needs: statistics that the samplers of this batch read.
        """
        ints = view.ints[view.request]
        self.remove_eos(logits, view.slots_np, ints)
        noise = self._noise(view, ints)
        choice, choice_rows = self._choice(logits, view, all_token_ids)
        stats = row_stats(
            logits,
            choice,
            choice_rows=choice_rows,
            mask_token=self.tokens.mask,
            temperature=noise.temperature,
            noise_keys=noise.keys,
            drawn_rows=noise.drawn_rows,
            need_entropy="entropy" in needs,
            need_margin="margin" in needs,
        )
        token = self._leave_masked(stats.token, view)
        by_distribution = ints[:, INT["position_first"]].bool()
        confidence = torch.where(by_distribution, stats.top_logprob, stats.logprob).exp_()
        suppresses = self.table.host.suppress_eos[view.slots_np] == SUPPRESS_EOS["confidence"]
        if some(suppresses):
            rows = rows_of(suppresses, view.request_np, logits.device)
            confidence = _suppress_eos_confidence(
                logits, token, confidence, rows, noise.temperature, self.tokens
            )
        divergence = self.memory.divergence(logits, view) if "divergence" in needs else None
        return Proposal(token, stats.logprob, confidence, stats.entropy, stats.margin, divergence)

    def remove_eos(self, logits: torch.Tensor, slots_np: np.ndarray, ints: torch.Tensor) -> None:
        """`suppress_eos=logits`, in place.

        Args:
            logits: [M, V] floating point.
            slots_np: [R] slots of the batch, on the host.
            ints: [M, F] int64, slot state of every row.
        """
        asked = self.table.host.suppress_eos[slots_np] == SUPPRESS_EOS["logits"]
        if self.tokens.eos is not None and some(asked):
            suppressed = ints[:, INT["suppress_eos"]] == SUPPRESS_EOS["logits"]
            logits[:, self.tokens.eos].masked_fill_(suppressed, float("-inf"))

    def _noise(self, view: PassView, ints: torch.Tensor) -> _Noise:
        draws = self.table.host.draws[view.slots_np]
        if not some(draws):
            return _Noise(None, None, None)
        canvas = view.row_positions - ints[:, INT["prompt_len"]]
        return _Noise(
            self.table.floats[view.slots[view.request], FLOAT["temperature"]],
            row_keys(ints[:, INT["seed"]], canvas, ints[:, INT["block_pass"]]),
            rows_of(draws, view.request_np, ints.device),
        )

    def _choice(
        self, logits: torch.Tensor, view: PassView, all_token_ids: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Edited logits to choose from, [K, V] float32, and the rows they belong to, [K]."""
        ruled = self.rules.has_rules[view.slots_np]
        worded = self.bad_words.has_words[view.slots_np]
        filters = self.table.host.filters[view.slots_np]
        filtered = filters.any(axis=1)
        given = self.templates.host.scored[view.slots_np]
        edited = ruled | worded | filtered | given
        if not some(edited):
            return None, None
        rows = rows_of(edited, view.request_np, logits.device)
        request_np = view.request_np[edited[view.request_np]]
        slots = view.slots[view.request[rows]]
        choice = logits[rows].float()
        choice[:, self.tokens.mask] = float("-inf")
        if some(ruled):
            own = rows_of(ruled, request_np, logits.device)
            self.rules.apply(choice, own, slots[own], view.canvas_positions(rows[own]))
        if some(worded):
            self.bad_words.forbid(choice, view, rows, all_token_ids)
        if some(filtered):
            floats = self.table.floats[slots]
            asked = compress(FILTERS, filters.any(axis=0))
            columns = {name: floats[:, FLOAT[name]] for name in asked}
            filter_logits(choice, floats[:, FLOAT["temperature"]], **columns)
        if some(given):
            own = rows_of(given, request_np, logits.device)
            self._give_targets(choice, own, self._targets(view, rows[own]))
        return choice, rows

    def _give_targets(self, choice: torch.Tensor, own: torch.Tensor, targets: torch.Tensor) -> None:
        """Leave scored rows their target alone, in place; a row without a target keeps its own.

        Args:
            choice: [K, V] float32.
            own: [M] int64, scored rows of K.
            targets: [M] int64, as `_targets` gives them.
        """
        scored = targets != self.tokens.mask
        known = scored.new_zeros(len(choice)).index_copy_(0, own, scored)
        choice.masked_fill_(known.unsqueeze(1), float("-inf"))
        choice[own, targets] = torch.where(scored, 0.0, choice[own, targets])

    def _leave_masked(self, token: torch.Tensor, view: PassView) -> torch.Tensor:
        """Proposed tokens, [N], with the mask token where a score has no target."""
        given = self.templates.host.scored[view.slots_np]
        if not some(given):
            return token
        rows = rows_of(given, view.request_np, token.device)
        return token.index_copy(0, rows, self._targets(view, rows))

    def _targets(self, view: PassView, rows: torch.Tensor) -> torch.Tensor:
        """Given tokens of scored logits rows, [M] int64; the mask token where there is none."""
        slots = view.slots[view.request[rows]]
        return self.templates.targets(slots, view.canvas_positions(rows))

    def ruled(
        self,
        logits: torch.Tensor,
        slots_np: np.ndarray,
        slots: torch.Tensor,
        canvas_positions: torch.Tensor,
    ) -> torch.Tensor:
        """What tokens are chosen from where only rules act, no filters and no words.

        Args:
            logits: [M, V], a copy of rows of the pass; it may be modified.
            slots_np: [R], slots of the batch, on the host.
            slots: [M] int64, of every row.
            canvas_positions: [M] int64.

        Returns:
            [M, V] float32: the mask token removed, bias and forbidden tokens applied.
        """
        choice = logits.float()
        choice[:, self.tokens.mask] = float("-inf")
        if some(self.rules.has_rules[slots_np]):
            every = torch.arange(len(choice), device=choice.device)
            self.rules.apply(choice, every, slots, canvas_positions)
        return choice


class _Noise(NamedTuple):
    temperature: torch.Tensor | None  # [N] float64
    keys: torch.Tensor | None  # [N] int64
    drawn_rows: torch.Tensor | None  # [M] int64


def _suppress_eos_confidence(
    logits: torch.Tensor,
    token: torch.Tensor,
    confidence: torch.Tensor,
    rows: torch.Tensor,
    temperature: torch.Tensor | None,
    tokens: SpecialTokens,
) -> torch.Tensor:
    """LLaDA's `confidence_eos_eot_inf`: the probability of the chosen token when EoT, and at
    temperature 0 EOS too, are removed from the distribution; 0 for those tokens themselves.

    LLaDA removes EOS from a tensor that is the logits only at temperature 0. `rows` are those of
    requests that ask for it, [M] int64; others keep their confidence.
    """
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
