"""The two questions that lm-eval asks, as requests to the server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openai import OpenAI

MAX_TOKENS = 256
"""Of an answer whose task names no `max_gen_toks`; lm-eval's own default."""


class Client:
    """A server that has `/v1/chat/completions` and, with ``VLLM_PLUGINS=mdlm``,
    `/v1/loglikelihood`.

    Args:
        base_url: ``http://HOST:PORT/v1``.
        vllm_xargs: parameters of every generation, `sampler` and the like.
        mc_samples: Monte-Carlo samples of every likelihood.
        seed: of masks and of sampled tokens.
        request_seconds: most seconds of one request.
    """

    def __init__(
        self,
        base_url: str,
        vllm_xargs: Mapping[str, str | int | float] | None = None,
        mc_samples: int = 128,
        seed: int = 0,
        request_seconds: float = 3600.0,
    ) -> None:
        self._openai = OpenAI(base_url=base_url, api_key="none", timeout=request_seconds)
        self.model = self._openai.models.list().data[0].id
        self._xargs = dict(vllm_xargs or {})
        self._mc_samples, self._seed = mc_samples, seed

    def loglikelihood(self, context: str, continuation: str) -> tuple[float, bool]:
        """LLaDA's bound on log p(continuation | context), nats, and whether greedy decoding writes
        the continuation.

        Raises:
            openai.APIError: the server refused; 404 is a server without the route.
        """
        body = {
            "model": self.model,
            "context": context,
            "continuation": continuation,
            "mc_samples": self._mc_samples,
            "seed": self._seed,
            "greedy": 1,
        }
        response: Any = self._openai.post("/loglikelihood", cast_to=object, body=body)
        (result,) = response["results"]
        return float(result["loglikelihood"]), bool(result["is_greedy"])

    def generate(self, context: str, options: Mapping[str, Any]) -> str:
        """The answer to a context, sent as one user message.

        Args:
            context: the prompt.
            options: lm-eval's `generation_kwargs`: `until`, `max_gen_toks`, `do_sample`,
                `temperature` and `top_p`.

        Raises:
            ValueError: another option, which would be ignored.
            openai.APIError: the server refused.
        """
        known = {"until", "max_gen_toks", "do_sample", "temperature", "top_p"}
        if unknown := sorted(set(options) - known):
            raise ValueError(
                f"generation_kwargs has {', '.join(unknown)}; taken are {', '.join(sorted(known))}"
            )
        until = options.get("until") or []
        sampled = options.get("do_sample", bool(options.get("temperature")))
        response = self._openai.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": context}],
            max_tokens=options.get("max_gen_toks", MAX_TOKENS),
            temperature=options.get("temperature", 1.0) if sampled else 0.0,
            top_p=options.get("top_p", 1.0),
            stop=[until] if isinstance(until, str) else list(until),
            seed=self._seed,
            extra_body={"vllm_xargs": self._xargs},
        )
        return response.choices[0].message.content or ""
