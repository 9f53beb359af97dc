"""The posterior-trace recipe against a real server: it asks, is killed, goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from transformers import AutoTokenizer

from recipes.pass_at_k.settings import Sampler
from recipes.pass_at_k.store import read
from recipes.posterior_traces.__main__ import run, write_chats
from recipes.posterior_traces.ask import Asker
from recipes.posterior_traces.questions import Item
from recipes.posterior_traces.records import WITHOUT_REASONING, Scored, Trace
from recipes.posterior_traces.settings import Filter, Settings, Template
from recipes.train.data import ChatSource
from recipes.train.settings import ChatData
from tests.routes.conftest import KEY, Routes

SETTINGS = Settings(
    model="tiny",
    seed=5,
    samples=3,
    concurrency=4,
    template=Template(positions=8, delimiter=" so ", answer_positions=4, end="<|endoftext|>"),
    sampling=Sampler(sampler="entropy", temperature=1.0, arguments={"block_length": 4}),
    filter=Filter(keep=1),
)
ITEMS = [
    Item(question="Hello there", answer="42"),
    Item(question="What is 1 + 2?", answer="3", positions=6),
]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """The bodies that go to the server."""
    bodies: list[tuple[str, Any]] = []
    post = Asker._post

    async def spy(self: Asker, path: str, body: Any, kind: Any) -> Any:
        bodies.append((path, body))
        return await post(self, path, body, kind)

    monkeypatch.setattr(Asker, "_post", spy)
    return bodies


def lines_of(path: Path) -> set[str]:
    return set(path.read_text().splitlines())


def test_a_killed_run_goes_on_and_its_file_is_data_for_the_trainer(
    routes: Routes, folder: Path, tmp_path: Path, sent: list[tuple[str, Any]]
) -> None:
    traces, scores = tmp_path / "traces.jsonl", tmp_path / "scores.jsonl"
    found = run(SETTINGS, ITEMS, tmp_path, str(routes.http.base_url), KEY)
    asked = [body for path, body in sent if path == "/infill"]
    assert len(asked) == len({body["seed"] for body in asked}) == 6
    whole = {path: (path.read_text(), lines_of(path)) for path in (traces, scores)}
    for path, (text, _) in whole.items():
        path.write_text("".join(text.splitlines(keepends=True)[:2]) + '{"task": "inf')
    kept_traces, kept_scores = read(traces, Trace), read(scores, Scored)
    sent.clear()
    again = run(SETTINGS, ITEMS, tmp_path, str(routes.http.base_url), KEY)
    seeds = {body["seed"] for path, body in sent if path == "/infill"}
    assert len(seeds) == 4
    assert not seeds & {one.seed for one in kept_traces.values()}
    texts = [text for path, body in sent if path != "/infill" for text in body["reasonings"]]
    assert len(texts) == len(whole[scores][1]) - len(kept_scores)
    assert lines_of(traces) == whole[traces][1]  # The seeds are the same, so are the traces.
    assert [*again.distinct] == [*found.distinct]
    sent.clear()
    assert run(SETTINGS, ITEMS, tmp_path, str(routes.http.base_url), KEY) == again
    assert sent == []

    write_chats(tmp_path / "kept.jsonl", SETTINGS, ITEMS, again.kept)
    data = ChatData(
        file=str(tmp_path / "kept.jsonl"),
        row_lengths=(128,),
        row_weights=(1.0,),
        tokens_per_batch=256,
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    source = ChatSource(data, tokenizer, seed=0)
    kept = [trace for group in again.kept.values() for trace in group]
    assert 0 < len(source.examples) == len(kept) <= len(ITEMS)
    assert source.batch(0).tokens.shape == (2, 128)


def test_scores_are_those_of_the_route_with_the_answer_masked(
    routes: Routes, tmp_path: Path
) -> None:
    item, only = ITEMS[0], [ITEMS[0]]
    found = run(SETTINGS, only, tmp_path, str(routes.http.base_url), KEY)
    (group,) = found.distinct.values()
    free = [{"mask": 8, "name": "reasoning"}, " so ", {"mask": 4, "name": "answer"}]
    answer = routes.ask(
        "reasoning_score",
        messages=[{"role": "user", "content": item.question}],
        template=[*free, "<|endoftext|>"],
        answer="answer",
        target=item.answer,
        reasonings=["", *(trace.text for trace in group)],
    )
    wanted = [score["logprob"] / len(score["token_ids"]) for score in answer["scores"]]
    assert [*found.without, *(found.scores[t.key] for t in group)] == pytest.approx(
        wanted, abs=1e-4
    )
    records = read(tmp_path / "scores.jsonl", Scored).values()
    assert min(record.sample for record in records) == WITHOUT_REASONING
    best = max(group, key=lambda trace: found.scores[trace.key] or 0.0)
    assert found.kept == {item.id: [best]}


def test_a_mistake_in_the_settings_is_the_servers_answer(routes: Routes, tmp_path: Path) -> None:
    sampling = Sampler(sampler="entropy", temperature=1.0, arguments={"block_length": 3.5})
    settings = msgspec.structs.replace(SETTINGS, sampling=sampling)
    with pytest.raises(openai.BadRequestError, match="block_length"):
        run(settings, ITEMS, tmp_path, str(routes.http.base_url), KEY)
