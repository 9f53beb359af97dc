"""A checkpoint with linears in int8, as `recipes.quantize` writes it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from vllm import SamplingParams

from recipes.train.questions import check, held_out
from tests.engine.conftest import EMBEDDED
from tests.engine.harness import Engine
from tests.engine.test_kv_cache import as_job, cases
from tests.reference.generate import generate
from tests.reference.model import Llada


def test_tokens_in_every_cache_mode(
    engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    """Alone as in any batch; and those of the independent network, but for inputs that fall
    between two whole numbers: sums in another order then round them otherwise."""
    running = engine("gqa-int8")
    some = cases(1, 18, ["exact", "dual", "prefix"])
    jobs = [as_job(*case) for case in some]
    alone = [list(running.run([one])[0].token_ids) for one in jobs]
    assert [list(output.token_ids) for output in running.run(jobs)] == alone
    assert [list(output.token_ids) for output in running.run(jobs, rate=1)] == alone

    def equal(shape: str) -> float:
        """Share of the tokens that the network has too."""
        expected = [generate(reference(shape), *case).tokens for case in some]
        pairs = [
            pair for a, b in zip(alone, expected, strict=True) for pair in zip(a, b, strict=True)
        ]
        return sum(a == b for a, b in pairs) / len(pairs)

    assert equal("gqa-int8") > 0.95
    assert equal("gqa") < 0.8


@pytest.mark.skipif(not (EMBEDDED / "config.json").is_file(), reason="the model is not here")
def test_the_embedded_model_answers(engine: Callable[..., Engine]) -> None:
    running = engine("embedded-int8", dtype="bfloat16")
    questions = list(held_out(8))
    chats = [[{"role": "user", "content": question.text}] for question in questions]
    params = [
        SamplingParams(temperature=0, max_tokens=96, extra_args={"sampler": "med", **mode})
        for mode in ({"kv_cache": name} for name in ("exact", "prefix", "dual", "exact") * 2)
    ]
    together = [one.outputs[0].text for one in running.llm.chat(chats, params)]
    alone = [
        running.llm.chat([chat], [one])[0].outputs[0].text
        for chat, one in zip(chats, params, strict=True)
    ]
    assert together == alone
    assert all(check(q, text).answer_right for q, text in zip(questions, together, strict=True))
