"""The two questions that lm-eval asks, as requests to the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openai import OpenAI

MAX_TOKENS = 256
"""Of an answer whose task names no `max_gen_toks`; lm-eval's own default."""


class Client:
    """A server that has vLLM's own routes and, with ``VLLM_PLUGINS=mdlm``,
    `/v1/loglikelihood`.

    Args:
        base_url: ``http://HOST:PORT/v1``.
        vllm_xargs: parameters of every generation, `sampler` and the like.
        mc_samples: Monte-Carlo samples of every likelihood.
        seed: of masks and of sampled tokens.
        greedy: whether a likelihood also tells if greedy decoding writes the continuation, which
            takes a pass for every one of its tokens.
        request_seconds: most seconds of one request.
    """

    def __init__(
        self,
        base_url: str,
        vllm_xargs: Mapping[str, str | int | float] | None = None,
        mc_samples: int = 128,
        seed: int = 0,
        greedy: bool = True,
        request_seconds: float = 3600.0,
    ) -> None:
        self._openai = OpenAI(base_url=base_url, api_key="none", timeout=request_seconds)
        self.model = self._openai.models.list().data[0].id
        self._xargs = dict(vllm_xargs or {})
        self._mc_samples, self._seed, self._greedy = mc_samples, seed, greedy
        self._root = base_url.removesuffix("/").removesuffix("/v1")

    def loglikelihood(self, context: str | list[int], continuation: str) -> tuple[float, bool]:
        """LLaDA's bound on log p(continuation | context), nats, and whether greedy decoding writes
        the continuation; without `greedy` that is False unasked, as in LLaDA's evaluation.

        Spaces and newlines that end a text move to its continuation, as there; token ids stay.

        Raises:
            openai.APIError: the server refused; 404 is a server without the route.
        """
        body = {
            "model": self.model,
            "context": context,
            "continuation": continuation,
            "mc_samples": self._mc_samples,
            "seed": self._seed,
            "greedy": int(self._greedy),
        }
        response: Any = self._openai.post("/loglikelihood", cast_to=object, body=body)
        (result,) = response["results"]
        return float(result["loglikelihood"]), bool(result["is_greedy"])

    def chat_text(
        self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Messages as the text that the server's chat template makes of them.

        Args:
            messages: each with `role` and `content`.
            add_generation_prompt: whether the assistant's turn is opened; without, the last message
                is left open for a continuation.

        Raises:
            openai.APIError: the server refused.
        """
        rendered: Any = self._openai.post(
            f"{self._root}/tokenize",
            cast_to=object,
            body={
                "model": self.model,
                "messages": list(messages),
                "add_generation_prompt": add_generation_prompt,
                "continue_final_message": not add_generation_prompt,
            },
        )
        body = {"model": self.model, "tokens": rendered["tokens"]}
        text: Any = self._openai.post(f"{self._root}/detokenize", cast_to=object, body=body)
        return str(text["prompt"])

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text that a chat template has made, which begins with its own BOS.

        Raises:
            openai.APIError: the server refused.
        """
        body = {"model": self.model, "prompt": text, "add_special_tokens": False}
        found: Any = self._openai.post(f"{self._root}/tokenize", cast_to=object, body=body)
        return list(found["tokens"])

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
        response = self._openai.chat.completions.create(
            messages=[{"role": "user", "content": context}], **self._standard(options)
        )
        return response.choices[0].message.content or ""

    def complete(self, text: str, options: Mapping[str, Any]) -> str:
        """What follows a text that a chat template has made; otherwise as `generate`."""
        fields = self._standard(options)
        fields["extra_body"] |= {"add_special_tokens": False}
        response = self._openai.completions.create(prompt=text, **fields)
        return str(response.choices[0].text)

    def _standard(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of a request that `generation_kwargs` ask for."""
        known = {"until", "max_gen_toks", "do_sample", "temperature", "top_p"}
        if unknown := sorted(set(options) - known):
            raise ValueError(
                f"generation_kwargs has {', '.join(unknown)}; taken are {', '.join(sorted(known))}"
            )
        until = options.get("until") or []
        sampled = options.get("do_sample", bool(options.get("temperature")))
        return {
            "model": self.model,
            "max_tokens": options.get("max_gen_toks", MAX_TOKENS),
            "temperature": options.get("temperature", 1.0) if sampled else 0.0,
            "top_p": options.get("top_p", 1.0),
            "stop": [until] if isinstance(until, str) else list(until),
            "seed": self._seed,
            "extra_body": {"vllm_xargs": self._xargs},
        }
