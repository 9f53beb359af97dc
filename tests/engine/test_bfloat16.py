"""The model's usual dtype: what keeps logits from pass to pass keeps them in that dtype."""

from __future__ import annotations

from collections.abc import Callable

from tests.engine.harness import Engine, job


def test_klass_guided_and_not_in_any_order(engine: Callable[..., Engine]) -> None:
    running = engine("mha", dtype="bfloat16")
    own = {"sampler": "klass", "threshold": 0.3, "kl_threshold": 0.5, "trace": 1}
    jobs = [job([1, 2, 3 + i], 16, cfg_scale=scale, **own) for i, scale in enumerate((0.0, 1.0))]
    alone = [list(running.run([one])[0].token_ids) for one in (*jobs, *jobs)]
    assert alone[:2] == alone[2:]
    assert [list(output.token_ids) for output in running.run([*jobs, *jobs])] == alone
