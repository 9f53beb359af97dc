"""Optimisers, their schedule and the moving average of the weights."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from recipes.train.settings import OptimSettings


def schedule(step: int, s: OptimSettings) -> float:
    """The share of the peak learning rate at a step: linear warm-up, then cosine to the least."""
    if step < s.warm_up:
        return (step + 1) / s.warm_up
    done = (step - s.warm_up) / max(1, s.steps - s.warm_up)
    least = s.min_learning_rate / s.learning_rate
    return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def build_optimizers(model: nn.Module, s: OptimSettings) -> list[Optimizer]:
    """AdamW for everything, or Muon for the matrices of the layers and AdamW for the rest.

    Every parameter group keeps its peak rate in ``peak``. Norms are not decayed.
    """
    layer = {n for n, p in model.named_parameters() if ".blocks." in n and p.dim() == 2}
    muon = layer if s.method == "muon" else set[str]()
    rest = [(n, p) for n, p in model.named_parameters() if n not in muon]
    adam = AdamW(
        [
            {"params": [p for _, p in rest if p.dim() == 2], "weight_decay": s.weight_decay},
            {"params": [p for _, p in rest if p.dim() != 2], "weight_decay": 0.0},
        ],
        lr=s.learning_rate,
        betas=s.betas,
        fused=True,
    )
    optimizers: list[Optimizer] = [adam]
    if muon:
        matrices = [p for n, p in model.named_parameters() if n in muon]
        optimizers.append(
            Muon(matrices, lr=s.muon_learning_rate, weight_decay=s.weight_decay, momentum=0.95)
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def set_rate(optimizers: list[Optimizer], share: float) -> None:
    """Set every group to a share of its peak learning rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share


class Average:
    """An exponential moving average of the parameters, faster in the first steps.

    The decay at update n is min(decay, (1 + n) / (10 + n)), TensorFlow's rule.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.weights = {n: p.detach().clone() for n, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        now = dict(model.named_parameters())
        torch._foreach_lerp_(
            list(self.weights.values()), [now[n].detach() for n in self.weights], 1 - decay
        )

    def state_dict(self) -> dict[str, object]:
        return {"updates": self.updates, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self.updates = int(state["updates"])  # type: ignore[call-overload]
        loaded: Mapping[str, Tensor] = state["weights"]  # type: ignore[assignment]
        for name, weight in self.weights.items():
            weight.copy_(loaded[name])
