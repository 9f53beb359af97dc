"""Ask a server for every answer that is missing, many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from openai import AsyncOpenAI
from openai.types.chat.chat_completion import Choice
from tqdm import tqdm

from recipes.pass_at_k.settings import Sampler, Study, Task
from recipes.pass_at_k.store import Answer, Key, Log
from recipes.pass_at_k.tasks import Item

Items = Mapping[str, Sequence[Item]]
"""Questions by the task's name."""


class Request(NamedTuple):
    """One answer to ask for."""

    task: Task
    item: Item
    sampler: Sampler
    sample: int

    @property
    def key(self) -> Key:
        return self.task.name, self.item.id, self.sampler.label, self.sample


def seed_of(study_seed: int, task: str, question: str, sample: int) -> int:
    """Seed of a sample, 0 to 2^63 - 1; the same for every sampler, so that their differences
    are less noisy.
    """
    name = f"{study_seed}/{task}/{question}/{sample}".encode()
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "big") >> 1


def requests(study: Study, items: Items, samplers: Sequence[Sampler]) -> Iterator[Request]:
    """All answers of a study, sampler by sampler, every question's first samples first."""
    for sampler in samplers:
        for task in study.tasks:
            for sample in range(study.samples_of(sampler)):
                for item in items[task.name]:
                    yield Request(task, item, sampler, sample)


async def answer_all(
    study: Study,
    items: Items,
    samplers: Sequence[Sampler],
    base_url: str,
    log: Log[Answer],
    *,
    api_key: str = "none",
) -> None:
    """Ask for what ``log`` lacks, ``study.concurrency`` requests at once; write as they come.

    Raises:
        openai.APIError: the server refused a request, or did not answer; what came is kept.
        RuntimeError: its answers do not count forward passes.
    """
    missing = [r for r in requests(study, items, samplers) if r.key not in log.records]
    queue = iter(missing)
    async with AsyncOpenAI(
        base_url=base_url, api_key=api_key, timeout=study.request_seconds
    ) as client:
        model = (await client.models.list()).data[0].id

        async def worker() -> None:
            # All workers draw from the one iterator; nothing awaits between draw and use.
            for request in queue:
                log.append(await ask(client, model, study.seed, request))
                progress.update()

        with tqdm(total=len(missing), unit="answer", smoothing=0.05) as progress:
            workers = [asyncio.create_task(worker()) for _ in range(study.concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:
                for one in workers:
                    one.cancel()


async def ask(client: AsyncOpenAI, model: str, study_seed: int, request: Request) -> Answer:
    """One chat completion."""
    task, item, sampler, sample = request
    seed = seed_of(study_seed, task.name, item.id, sample)
    response = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": item.prompt}],
        max_tokens=task.max_tokens,
        temperature=sampler.temperature,
        seed=seed,
        extra_body={"vllm_xargs": sampler.vllm_xargs(task)},
    )
    (choice,) = response.choices
    usage = response.usage
    passes = ((usage.model_extra if usage else None) or {}).get("forward_passes")
    if usage is None or passes is None:
        raise RuntimeError(
            "the server's `usage` has no `forward_passes`; serve a masked diffusion model with "
            "this plugin"
        )
    return Answer(
        task=task.name,
        question=item.id,
        setting=sampler.label,
        sample=sample,
        seed=seed,
        text=choice.message.content or "",
        finish_reason=choice.finish_reason,
        completion_tokens=usage.completion_tokens,
        forward_passes=passes,
        proposals=of_chains(choice, "proposals"),
        acceptances=of_chains(choice, "acceptances"),
    )


def of_chains(choice: Choice, name: str) -> int | None:
    """A count of the answer's trace, summed over its chains; None where no chain ran."""
    trace: dict[str, list[int]] = (choice.model_extra or {}).get("trace") or {}
    return sum(trace[name]) if name in trace else None
