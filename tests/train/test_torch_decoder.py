"""The plain-torch decoder on models whose answers are known."""

import pytest
import torch
from torch import Tensor

from recipes.train.decode import Decoded, confidence, decode, left_to_right

MASK = 0


class Planted:
    """Logits that name token ``position + 1`` with a confidence that is planted by position."""

    def __init__(self, strength: list[float]) -> None:
        self.strength = torch.tensor(strength, dtype=torch.float32)

    def __call__(self, tokens: Tensor, where: Tensor) -> Tensor:
        position = where % tokens.shape[1]
        logits = torch.zeros(len(where), 12)
        logits[:, MASK] = 50.0
        rows = torch.arange(len(where))
        logits[rows, position + 1] = self.strength[position]
        return logits


def run(strength: list[float], block_length: int, per_pass: int, score=confidence) -> Decoded:
    tokens = torch.tensor([[9, 9] + [MASK] * 6] * 2)
    model = Planted(strength)
    return decode(model, tokens, 2, MASK, block_length, per_pass, score)  # type: ignore[arg-type]


STRENGTH = [0, 0, 3, 5, 4, 1, 6, 2]


def test_every_position_gets_its_token_and_the_prompt_stays() -> None:
    out = run(STRENGTH, 6, 1)
    assert out.tokens.tolist() == [[9, 9, 3, 4, 5, 6, 7, 8]] * 2
    assert (out.order[:, :2] == -1).all()


@pytest.mark.parametrize(
    ("block_length", "per_pass", "score", "order"),
    [
        (6, 1, confidence, [3, 1, 2, 5, 0, 4]),
        (3, 1, confidence, [2, 0, 1, 5, 3, 4]),
        (6, 2, confidence, [1, 0, 1, 2, 0, 2]),
        (6, 1, left_to_right, [0, 1, 2, 3, 4, 5]),
        (4, 3, confidence, [0, 0, 0, 1, 2, 2]),
    ],
)
def test_order_of_commits(block_length: int, per_pass: int, score, order: list[int]) -> None:
    assert run(STRENGTH, block_length, per_pass, score).order[0, 2:].tolist() == order


def test_ties_go_to_the_lowest_position() -> None:
    assert run([1.0] * 8, 6, 1).order[0, 2:].tolist() == [0, 1, 2, 3, 4, 5]


def test_fixed_text_in_the_canvas_is_kept() -> None:
    tokens = torch.tensor([[9, MASK, 7, MASK]])
    model = Planted([1.0] * 4)
    out = decode(model, tokens, 1, MASK, 3)  # type: ignore[arg-type]
    assert out.tokens.tolist() == [[9, 2, 7, 4]]
    assert out.order[0].tolist() == [-1, 0, -1, 1]
