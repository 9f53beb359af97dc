"""Ask a server for the traces and the scores that are missing, many at a time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from openai import AsyncOpenAI, BadRequestError
from tqdm import tqdm

from recipes.pass_at_k.run import seed_of
from recipes.pass_at_k.store import Key, Log
from recipes.posterior_traces.questions import Item
from recipes.posterior_traces.records import WITHOUT_REASONING, Scored, Trace
from recipes.posterior_traces.settings import ANSWER, REASONING, Settings

J = TypeVar("J")

CALL = "infill"
"""The task in the records' keys."""


class Span(Struct):
    """What is read of a free span."""

    text: str
    mean_logprob: float | None


class Choice(Struct):
    """What is read of a filled template."""

    spans: dict[str, Span]
    forward_passes: int


class Filled(Struct):
    """What is read of a response of ``/v1/infill``."""

    choices: list[Choice]


class Score(Struct):
    """What is read of one score."""

    logprob: float
    token_ids: list[int]


class Scores(Struct):
    """What is read of a response of ``/v1/reasoning_score``."""

    scores: list[Score]


class Asker:
    """The two routes of one server, with a run's settings.

    The OpenAI client has no method for them; its ``post`` retries and raises as for its own.
    """

    def __init__(self, settings: Settings, base_url: str, api_key: str) -> None:
        self.settings = settings
        self.client = AsyncOpenAI(
            base_url=base_url, api_key=api_key, timeout=settings.request_seconds
        )
        self.model = ""

    async def __aenter__(self) -> Asker:
        self.model = (await self.client.models.list()).data[0].id
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def trace(self, item: Item, sample: int) -> Trace:
        """Reasoning for the item's answer."""
        settings, key = self.settings, key_of(self.settings, item, sample)
        seed = seed_of(settings.seed, CALL, item.id, sample)
        body = {
            "messages": messages(item),
            "template": settings.template.sampling(self._positions(item), item.answer),
            "temperature": settings.sampling.temperature,
            "seed": seed,
            **settings.arguments,
        }
        (choice,) = (await self._post("/infill", body, Filled)).choices
        span = choice.spans[REASONING]
        return Trace(
            **named(key),
            seed=seed,
            text=span.text,
            mean_logprob=span.mean_logprob,
            forward_passes=choice.forward_passes,
        )

    async def scores(self, item: Item, wanted: Mapping[Key, str]) -> list[Scored]:
        """Scores of reasonings by key, in one call; again without those that the server refuses.

        Raises:
            openai.BadRequestError: something else than a reasoning was refused.
        """
        left, found = dict(wanted), list[Scored]()
        while left:
            body = {
                "messages": messages(item),
                "template": self.settings.template.scoring(self._positions(item)),
                "answer": ANSWER,
                "target": item.answer,
                "reasoning": REASONING,
                "reasonings": [*left.values()],
            }
            try:
                scores = (await self._post("/reasoning_score", body, Scores)).scores
            except BadRequestError as error:
                # A sampled text may be tokenized again into more tokens than its span has.
                place = re.fullmatch(r"reasonings\[(\d+)\]", str(error.param))
                if place is None:
                    raise
                key = [*left][int(place[1])]
                del left[key]
                found.append(Scored(**named(key), logprob=None, tokens=0, note=error.message))
                continue
            return found + [
                Scored(**named(key), logprob=score.logprob, tokens=len(score.token_ids))
                for key, score in zip(left, scores, strict=True)
            ]
        return found

    async def _post(self, path: str, body: dict[str, Any], kind: type[J]) -> J:
        answer = await self.client.post(path, cast_to=object, body={"model": self.model, **body})
        return msgspec.convert(answer, kind)

    def _positions(self, item: Item) -> int:
        return item.positions or self.settings.template.positions


def messages(item: Item) -> list[dict[str, str]]:
    return [{"role": "user", "content": item.question}]


def key_of(settings: Settings, item: Item, sample: int) -> Key:
    return CALL, item.id, settings.sampling.label, sample


def named(key: Key) -> dict[str, Any]:
    """A key as the fields of a record."""
    return dict(zip(("task", "question", "setting", "sample"), key, strict=True))


async def sample_all(asker: Asker, items: Sequence[Item], log: Log[Trace]) -> None:
    """Ask for the traces that ``log`` lacks, every question's first samples first."""
    missing = [
        (item, sample)
        for sample in range(asker.settings.samples)
        for item in items
        if key_of(asker.settings, item, sample) not in log.records
    ]

    async def ask(job: tuple[Item, int]) -> None:
        log.append(await asker.trace(*job))

    await in_parallel(ask, missing, asker.settings.concurrency, "trace")


async def score_all(
    asker: Asker,
    items: Iterable[Item],
    traces: Mapping[str, Sequence[Trace]],
    log: Log[Scored],
) -> None:
    """Ask for the scores that ``log`` lacks: of every distinct trace and of no reasoning."""
    missing = list[tuple[Item, dict[Key, str]]]()
    for item in items:
        texts = {key_of(asker.settings, item, WITHOUT_REASONING): ""}
        texts |= {trace.key: trace.text for trace in traces.get(item.id, ())}
        wanted = {key: text for key, text in texts.items() if key not in log.records}
        if wanted:
            missing.append((item, wanted))

    async def ask(job: tuple[Item, dict[Key, str]]) -> None:
        for scored in await asker.scores(*job):
            log.append(scored)

    await in_parallel(ask, missing, asker.settings.concurrency, "question")


async def in_parallel(
    ask: Callable[[J], Awaitable[None]], jobs: Sequence[J], concurrency: int, unit: str
) -> None:
    """Do the jobs in order, ``concurrency`` at once, with a progress bar; the first error ends
    them all.
    """
    queue = iter(jobs)

    async def worker() -> None:
        # All workers draw from the one iterator; nothing awaits between draw and use.
        for job in queue:
            await ask(job)
            progress.update()

    with tqdm(total=len(jobs), unit=unit, smoothing=0.05) as progress:
        workers = [asyncio.create_task(worker()) for _ in range(concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for one in workers:
                one.cancel()
