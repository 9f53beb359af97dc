"""Requests that look harmless and have no answer are refused before the engine sees them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from vllm.exceptions import VLLMValidationError

from tests.engine.harness import Engine, job
from tests.reference.model import Llada


def test_rules_that_leave_no_token(
    engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    running, network = engine("ids_first"), reference("ids_first")
    only_eos = {"allowed_token_ids": [network.eos_token_id]}
    with pytest.raises(VLLMValidationError, match="leaves no token"):
        running.run([job([9, 9], 8, standard=only_eos, suppress_eos="logits")])
    with pytest.raises(VLLMValidationError, match="leaves no token"):
        running.run([job([9, 9], 8, standard={"allowed_token_ids": [network.mask_token_id]})])
    output = running.run([job([9, 9], 8, standard=only_eos)])[0]
    assert list(output.token_ids) == [network.eos_token_id] * 8


def test_min_tokens_beyond_the_canvas(engine: Callable[..., Engine]) -> None:
    standard = {"min_tokens": 32, "max_tokens": 64}
    with pytest.raises(VLLMValidationError, match=r"min_tokens.*gen_length 8"):
        engine("mha").run([job([1], standard=standard, gen_length=8)])
