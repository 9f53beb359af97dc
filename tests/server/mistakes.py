"""What a caller can get wrong: the parameter to name, and the fields of the body."""

from __future__ import annotations

from typing import Any

NAN, INFINITY = float("nan"), float("inf")
HUGE = 10**30


def own(**arguments: Any) -> dict[str, Any]:
    return {"vllm_xargs": arguments}


MH: list[tuple[str, Any]] = [
    ("alpha", 0),
    ("alpha", -1.0),
    ("alpha", 0.4),
    ("alpha", 5e-324),
    ("alpha", 101),
    ("alpha", "4"),
    ("alpha", NAN),
    ("mh_steps", -1),
    ("mh_steps", 1.5),
    ("mh_steps", 10**6),
    ("mh_scope", "canvas"),
    ("mh_scope", 1),
    ("proposal", "nope"),
    ("proposal", "mh"),
    ("proposal", "random"),
    ("proposal", "klass"),
    ("proposal", 1),
    ("threshold", 0.5),
    ("commit_order", "sample_first"),
    ("suppress_eos", "confidence"),
]
"""Values that the sampler `mh` refuses."""

OWN_PARAMETERS: list[tuple[str, dict[str, Any]]] = [
    ("sampler", own(sampler="nope")),
    ("sampler", own(sampler="")),
    ("sampler", own(sampler=3)),
    ("sampler", own(sampler=["random"])),
    ("sampler", own(sampler={"name": "random"})),
    ("foo", own(foo=1)),
    ("mdlm_plan", own(mdlm_plan="x")),
    ("diffusion_max_steps", own(diffusion_max_steps=3)),
    ("threshold", own(sampler="random", threshold=0.5)),
    ("gen_length", own(gen_length="8")),
    ("gen_length", own(gen_length=8.5)),
    ("gen_length", own(gen_length=0)),
    ("gen_length", own(gen_length=-8)),
    ("gen_length", own(gen_length=[8])),
    ("gen_length", own(gen_length=512)),
    ("gen_length", own(gen_length=2**53)),
    ("gen_length", own(gen_length=2**63)),
    ("gen_length", own(gen_length=HUGE)),
    ("gen_length", own(gen_length=None)),
    ("block_length", own(gen_length=16, block_length=5)),
    ("block_length", own(gen_length=16, block_length=32)),
    ("block_length", own(block_length=0)),
    ("block_length", own(block_length="x")),
    ("block_length", own(block_length=INFINITY)),
    ("block_length", own(block_length=2**64)),
    ("steps", own(gen_length=16, block_length=4, steps=6)),
    ("steps", own(steps=0)),
    ("steps", own(steps=-1)),
    ("steps", own(steps=1.5)),
    ("steps", own(steps="4")),
    ("steps", own(steps=NAN)),
    ("steps", own(steps=2**63 - 8)),
    ("steps", own(steps=HUGE)),
    ("kv_cache", own(kv_cache="none")),
    ("kv_cache", own(kv_cache=1)),
    ("commit_order", own(commit_order="best_first")),
    ("suppress_eos", own(suppress_eos="yes")),
    ("suppress_eos", own(suppress_eos=1)),
    ("cfg_scale", own(cfg_scale=-1)),
    ("cfg_scale", own(cfg_scale="1")),
    ("cfg_scale", own(cfg_scale=NAN)),
    ("cfg_scale", own(cfg_scale=INFINITY)),
    ("cfg_scale", own(cfg_scale=1e38)),
    ("trace", own(trace=2)),
    ("trace", own(trace=0.5)),
    ("vllm_xargs", {"vllm_xargs": "sampler"}),
    ("vllm_xargs", {"vllm_xargs": [1]}),
    *[(name, own(sampler="mh", **{name: value})) for name, value in MH],
    ("temperature", {"temperature": 0} | own(sampler="mh")),
    ("temperature", {"temperature": 0.7} | own(sampler="mh")),
    ("top_p", {"top_p": 0.9} | own(sampler="mh")),
    ("top_k", {"top_k": 5} | own(sampler="mh")),
    ("min_p", {"min_p": 0.1} | own(sampler="mh")),
    ("bad_words", {"bad_words": ["a longer one"]} | own(sampler="mh")),
    ("candidates", own(sampler="mh_lookahead", candidates=0)),
    ("candidates", own(sampler="mh_lookahead", candidates=10**4)),
    ("alpha", own(sampler="mh_lookahead", alpha=0)),
    ("proposal", own(sampler="mh_lookahead", proposal="entropy")),
    ("kv_cache", own(sampler="mh_lookahead", kv_cache="dual")),
    ("trace", own(sampler="mh_lookahead", trace=1)),
    ("commit_order", own(sampler="mh_lookahead", commit_order="sample_first")),
    ("temperature", {"temperature": 0} | own(sampler="mh_lookahead")),
    ("alpha", own(alpha=2.0)),
    ("proposal", own(proposal="entropy")),
    # Beside the standard parameters these would be ignored.
    ("sampler", {"sampler": "random"}),
    ("block_length", {"block_length": 4}),
    ("steps", {"steps": 4}),
]

STANDARD_PARAMETERS: list[tuple[str, dict[str, Any]]] = [
    ("temperature", {"temperature": -1}),
    ("temperature", {"temperature": 3}),
    ("temperature", {"temperature": "hot"}),
    ("temperature", {"temperature": NAN}),
    ("temperature", {"temperature": INFINITY}),
    ("top_p", {"top_p": 0}),
    ("top_p", {"top_p": 1.5}),
    ("top_p", {"top_p": NAN}),
    ("top_k", {"top_k": -2}),
    ("top_k", {"top_k": 1.5}),
    ("min_p", {"min_p": 2}),
    ("min_p", {"min_p": -0.1}),
    ("n", {"n": 0}),
    ("n", {"n": -1}),
    ("n", {"n": 2, "temperature": 0}),
    ("n", {"n": 10**6, "temperature": 1}),
    ("seed", {"seed": 2**63}),
    ("seed", {"seed": -(2**63) - 1}),
    ("seed", {"seed": "x"}),
    ("max_tokens", {"max_tokens": -1}),
    ("max_tokens", {"max_tokens": 1.5}),
    ("max_tokens", {"max_tokens": "many"}),
    ("max_tokens", {"max_tokens": 505}),
    ("max_tokens", {"max_tokens": 10**4}),
    ("max_tokens", {"max_tokens": HUGE}),
    ("min_tokens", {"min_tokens": -1}),
    ("min_tokens", {"min_tokens": 17, "max_tokens": 16}),
    ("min_tokens", {"min_tokens": 2**63}),
    ("logit_bias", {"logit_bias": {"5000": 1}}),
    ("logit_bias", {"logit_bias": {"320": 1}}),
    ("logit_bias", {"logit_bias": {"-1": 1}}),
    ("logit_bias", {"logit_bias": {"x": 1}}),
    ("logit_bias", {"logit_bias": [1]}),
    ("allowed_token_ids", {"allowed_token_ids": []}),
    ("allowed_token_ids", {"allowed_token_ids": [9999]}),
    ("allowed_token_ids", {"allowed_token_ids": [-1]}),
    ("allowed_token_ids", {"allowed_token_ids": [258]}),
    ("bad_words", {"bad_words": [""]}),
    ("bad_words", {"bad_words": "x"}),
    ("stop", {"stop": [""]}),
    ("stop", {"stop": 3}),
    ("stop", {"stop": ["\ud800"]}),
    ("stop_token_ids", {"stop_token_ids": [-5]}),
    ("stop_token_ids", {"stop_token_ids": [320]}),
    ("stop_token_ids", {"stop_token_ids": ["x"]}),
    ("stop_token_ids", {"stop_token_ids": [2**70]}),
    ("ignore_eos", {"ignore_eos": "x"}),
    ("presence_penalty", {"presence_penalty": 0.5}),
    ("presence_penalty", {"presence_penalty": 5}),
    ("frequency_penalty", {"frequency_penalty": 0.5}),
    ("repetition_penalty", {"repetition_penalty": 1.1}),
    ("repetition_penalty", {"repetition_penalty": 0}),
    ("use_beam_search", {"use_beam_search": True, "n": 2}),
    ("response_format", {"response_format": {"type": "json_object"}}),
    (
        "response_format",
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": {"type": "object"}},
            }
        },
    ),
    ("structured_outputs", {"structured_outputs": {"regex": "a"}}),
    ("structured_outputs", {"structured_outputs": {"choice": ["a", "b"]}}),
    ("structured_outputs", {"structured_outputs": {"json": "{}"}}),
    ("prompt_logprobs", {"prompt_logprobs": 0}),
    ("prompt_logprobs", {"prompt_logprobs": 1}),
    ("prompt_logprobs", {"prompt_logprobs": -1}),
    ("kv_transfer_params", {"kv_transfer_params": {"a": 1}}),
    ("thinking_token_budget", {"thinking_token_budget": 3}),
    ("cache_salt", {"cache_salt": ""}),
]

COMPLETIONS: list[tuple[str, dict[str, Any]]] = [
    ("prompt", {"prompt": ""}),
    ("prompt", {"prompt": None}),
    ("prompt", {"prompt": []}),
    ("prompt", {"prompt": [[]]}),
    ("prompt", {"prompt": [[1], []]}),
    ("prompt", {"prompt": [9999]}),
    ("prompt", {"prompt": [320]}),
    ("prompt", {"prompt": [-1]}),
    ("prompt", {"prompt": [2**70]}),
    ("prompt", {"prompt": [[1, 2], [9999]]}),
    ("prompt", {"prompt": {"text": "x"}}),
    ("prompt", {"prompt": "x" * 513}),
    ("max_tokens", {"prompt": "x" * 512}),
    ("max_tokens", {"max_tokens": 0}),
    ("prompt_embeds", {"prompt_embeds": "abc"}),
    ("logprobs", {"logprobs": 21}),
    ("logprobs", {"logprobs": -1}),
    ("logprobs", {"logprobs": -2}),
    ("logprobs", {"logprobs": "x"}),
    ("echo", {"echo": True, "logprobs": 1}),
    ("logprob_token_ids", {"logprob_token_ids": [1, 2], "logprobs": 2}),
    ("suffix", {"suffix": "x"}),
]

FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CHAT: list[tuple[str, dict[str, Any]]] = [
    ("messages", {"messages": "x"}),
    ("messages", {"messages": [{"role": "user", "content": "x" * 600}]}),
    ("max_tokens", {"max_tokens": 0}),
    ("logprobs", {"logprobs": 21}),
    ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
    ("top_logprobs", {"top_logprobs": 2, "logprobs": False}),
    ("tool_choice", {"tools": [FUNCTION], "tool_choice": "required"}),
    (
        "tool_choice",
        {
            "tools": [FUNCTION],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
        },
    ),
]

BODIES = {
    "completions": {"prompt": "Hello there", "max_tokens": 16},
    "chat/completions": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 16},
}
ROWS = (
    [(path, *row) for path in BODIES for row in OWN_PARAMETERS + STANDARD_PARAMETERS]
    + [("completions", *row) for row in COMPLETIONS]
    + [("chat/completions", *row) for row in CHAT]
)

NOT_IMPLEMENTED: list[Any] = []
