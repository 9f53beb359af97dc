"""The model class of lm-eval, registered as ``mdlm``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from tqdm import tqdm

from recipes.lm_eval.client import Client

T = TypeVar("T")


@register_model("mdlm")
class MdlmServer(LM):  # type: ignore[misc]
    """A masked diffusion language model behind this plugin's server.

    Args:
        base_url: ``http://HOST:PORT/v1``.
        concurrency: requests at once.
        mc_samples, seed, greedy: as `Client`.
        vllm_xargs: any other argument is a parameter of every generation.
    """

    def __init__(
        self,
        base_url: str,
        concurrency: int = 16,
        mc_samples: int = 128,
        seed: int = 0,
        greedy: bool = True,
        # lm-eval gives these to every class; a server has its own.
        batch_size: object = None,
        max_batch_size: object = None,
        device: object = None,
        **vllm_xargs: str | int | float,
    ) -> None:
        super().__init__()
        self.client = Client(base_url, vllm_xargs, int(mc_samples), int(seed), greedy)
        self.concurrency = int(concurrency)
        self._is_chat = False

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Bounds in nats; they stand in for log-likelihoods, as in LLaDA's evaluation."""
        if not self._is_chat:
            return self._each("loglikelihood", self.client.loglikelihood, requests)
        tokens = cache(self.client.tokens)
        return self._each(
            "loglikelihood",
            lambda text, end: self.client.loglikelihood(tokens(text), end),
            requests,
        )

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answers, cut at the task's stop strings: of a context that lm-eval has put into the chat
        template as it stands, of any other as one user message."""
        ask = self.client.complete if self._is_chat else self.client.generate
        return self._each("generate_until", ask, requests)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The server's chat template; lm-eval calls it for every context of a run, or for none."""
        self._is_chat = True
        return self.client.chat_text(chat_history, add_generation_prompt)

    @property
    def tokenizer_name(self) -> str:
        """Tells contexts of one chat template from those of another in lm-eval's cache."""
        return self.client.model

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Refused: perplexity of a text without context is not what the bound is of."""
        raise NotImplementedError(
            "the server bounds log p(continuation | context); tasks of the type "
            "loglikelihood_rolling are not supported"
        )

    def _each(self, name: str, ask: Callable[..., T], requests: Iterable[Instance]) -> list[T]:
        """Every request's result, in their order; each goes to lm-eval's cache when it is there."""
        arguments: list[tuple[Any, ...]] = [request.args for request in requests]
        found = list[T]()
        with ThreadPoolExecutor(self.concurrency) as pool:
            results = pool.map(lambda args: ask(*args), arguments)
            for args, result in zip(
                arguments, tqdm(results, total=len(arguments), desc=name), strict=True
            ):
                self.cache_hook.add_partial(name, args, result)
                found.append(result)
        return found
