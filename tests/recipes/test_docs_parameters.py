"""docs/parameters.md is what its generator prints, and it speaks of every parameter there is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from vllm.sampling_params import SamplingParams

from recipes.docs.parameters import HONOURED
from vllm_mdlm.admission import NOT_HONOURED

ROOT = Path(__file__).parents[2]

NOT_A_CALLERS = {
    # The carrier of our own parameters, and what the engine client sets.
    "extra_args",
    "output_kind",
    "detokenize",
    "flat_logprobs",
    "skip_clone",
    "output_text_buffer_length",
    "skip_reading_prefix_cache",
    # Without effect alone: they qualify a field that is refused or a feature of the server.
    "prompt_logprob_start",
    "watermarking",
    "routed_experts_prompt_start",
}


def test_the_page_is_what_the_generator_prints() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "recipes.docs.parameters"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8") == printed, (
        "run: python -m recipes.docs.parameters > docs/parameters.md"
    )


def test_every_field_of_vllm_is_honoured_refused_or_not_a_callers() -> None:
    fields = {name for name in SamplingParams.__struct_fields__ if not name.startswith("_")}
    groups = [set(HONOURED), set(NOT_HONOURED), NOT_A_CALLERS]
    assert set().union(*groups) == fields
    assert sum(map(len, groups)) == len(fields)
