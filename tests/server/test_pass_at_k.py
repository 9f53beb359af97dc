"""The pass@k study against a real server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import openai

from recipes.pass_at_k.run import answer_all, requests
from recipes.pass_at_k.settings import Sampler, Study, Task
from recipes.pass_at_k.store import Answer, Log
from recipes.pass_at_k.tasks import load
from tests.server.process import Server

TASK = Task(name="arithmetic", questions=2, max_tokens=8, arguments={"block_length": 4})
HOT = Sampler(sampler="low_confidence", temperature=1.0, commit_order="position_first")
STUDY = Study(
    model="",
    seed=3,
    samples=3,
    ks=(1, 3),
    budgets=(8,),
    concurrency=4,
    tasks=(TASK,),
    samplers=(Sampler(sampler="threshold", temperature=0.0, arguments={"threshold": 0.0}), HOT),
)


def test_answers_are_those_of_the_recorded_seeds_and_count_their_passes(
    server: Server, client: openai.OpenAI, tmp_path: Path
) -> None:
    log, items = Log(tmp_path / "answers.jsonl", Answer), {TASK.name: load(TASK)}
    asyncio.run(answer_all(STUDY, items, STUDY.samplers, f"{server.url}/v1", log))
    log.close()
    assert len(log.records) == 2 * (1 + 3)
    # One pass a block of 4 where everything is above the threshold; else a token a pass.
    greedy = [one.forward_passes for one in log.records.values() if "threshold" in one.setting]
    hot = [one.forward_passes for one in log.records.values() if one.setting == HOT.label]
    assert set(greedy) <= {1, 2}
    assert set(hot) <= set(range(1, 9))
    assert max(hot) > 2
    last = next(r for r in requests(STUDY, items, [HOT]) if r.sample == 2)
    again = client.chat.completions.create(
        model=server.model,
        messages=[{"role": "user", "content": last.item.prompt}],
        max_tokens=8,
        temperature=1.0,
        seed=log.records[last.key].seed,
        extra_body={"vllm_xargs": HOT.vllm_xargs(TASK)},
    )
    assert log.records[last.key].text == (again.choices[0].message.content or "")
