"""Sample reasoning for known answers, score it, filter it and write it as chat JSONL.

    python -m recipes.posterior_traces QUESTIONS.jsonl --out runs/traces

Start the same command again to go on after a kill; what is there is not asked again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from recipes.pass_at_k.store import Log
from recipes.posterior_traces.ask import Asker, key_of, sample_all, score_all
from recipes.posterior_traces.choose import best, distinct
from recipes.posterior_traces.questions import Item, gsm8k, read_questions
from recipes.posterior_traces.records import WITHOUT_REASONING, Scored, Trace
from recipes.posterior_traces.report import Outcome, report
from recipes.posterior_traces.settings import Settings, load_settings
from recipes.server import serve

SETTINGS = Path(__file__).with_name("arithmetic.toml")


def check_folder(settings: Settings, out: Path) -> None:
    """Refuse a folder whose traces were made with settings that their keys do not name.

    Questions, samples, the sampler and the filter may change between runs.

    Raises:
        ValueError: model, seed or template differ from the first run's.
    """
    path = out / "settings.json"
    now = {name: getattr(settings, name) for name in ("model", "seed", "template")}
    now = msgspec.to_builtins(now)
    first = msgspec.json.decode(path.read_bytes()) if path.exists() else now
    for name, value in now.items():
        if first[name] != value:
            raise ValueError(
                f"{out} holds traces of {name} {first[name]}, now it is {value}; name another "
                "folder by --out"
            )
    path.write_bytes(msgspec.json.encode(now))


def run(settings: Settings, items: Sequence[Item], out: Path, url: str, api_key: str) -> Outcome:
    """Ask for what is missing; returns all that there is of these questions."""
    traces = Log(out / "traces.jsonl", Trace)
    try:
        scored = Log(out / "scores.jsonl", Scored)
        try:
            return asyncio.run(ask_all(settings, items, traces, scored, url, api_key))
        finally:
            scored.close()
    finally:
        traces.close()


async def ask_all(
    settings: Settings,
    items: Sequence[Item],
    traces: Log[Trace],
    scored: Log[Scored],
    url: str,
    api_key: str,
) -> Outcome:
    """Sample, drop what says the same, score, filter."""
    async with Asker(settings, url, api_key) as asker:
        await sample_all(asker, items, traces)
        keys = [key_of(settings, item, s) for item in items for s in range(settings.samples)]
        asked = [traces.records[key] for key in keys]
        found = distinct(asked)
        await score_all(asker, items, found, scored)
    scores = {key: record.score for key, record in scored.records.items()}
    kept = {question: best(group, scores, settings.filter) for question, group in found.items()}
    alone = (scores.get(key_of(settings, item, WITHOUT_REASONING)) for item in items)
    without = [score for score in alone if score is not None]
    return Outcome(items, asked, found, kept, scores, without)


def write_chats(
    path: Path,
    settings: Settings,
    items: Sequence[Item],
    traces: Mapping[str, Sequence[Trace]],
) -> None:
    """Chat-format JSONL, in the order of the questions, in one rename."""
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        for item in items:
            for trace in traces.get(item.id, ()):
                reply = settings.template.reply(trace.text, item.answer)
                file.write(msgspec.json.encode(chat(item.question, reply)) + b"\n")
    unfinished.replace(path)


def chat(question: str, reply: str) -> dict[str, list[dict[str, str]]]:
    """One line of a chat-format file."""
    turns = (("user", question), ("assistant", reply))
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "questions", type=Path, nargs="?", help="JSONL of questions; else the settings' data set"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--settings", type=Path, default=SETTINGS, help="TOML file")
    parser.add_argument("--base-url", help="http://HOST:PORT/v1 of a server; else one is started")
    parser.add_argument("--model", help="the model to start a server with; else the settings'")
    args = parser.parse_args()
    # An orderly end for every way of being stopped: leaving `serve` stops the server.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    try:
        settings = load_settings(args.settings)
        if args.model:
            settings = msgspec.structs.replace(settings, model=args.model)
        if args.questions is None and settings.data_set is None:
            parser.error(f"name a file of questions: {args.settings} has no `data_set`")
        items = read_questions(args.questions) if args.questions else gsm8k()
        args.out.mkdir(parents=True, exist_ok=True)
        check_folder(settings, args.out)
    except (msgspec.MsgspecError, ValueError, RuntimeError, OSError) as error:
        sys.exit(f"posterior_traces: {error}")
    api_key = os.environ.get("OPENAI_API_KEY", "none")
    if args.base_url:
        found = run(settings, items, args.out, args.base_url, api_key)
    else:
        with serve(settings.model, *settings.serve, env={"VLLM_PLUGINS": "mdlm"}) as server:
            found = run(settings, items, args.out, server.base_url, api_key)
    write_chats(args.out / "kept.jsonl", settings, items, found.kept)
    write_chats(args.out / "distinct.jsonl", settings, items, found.distinct)
    text = report(settings, found)
    (args.out / "report.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
