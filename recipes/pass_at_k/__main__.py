"""Answer, grade and report a pass@k study.

    python -m recipes.pass_at_k recipes/pass_at_k/arithmetic_small.toml --out runs/pass_at_k

Start the same command again to go on after a kill; what is there is not asked or graded again.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from recipes.pass_at_k.curves import curves
from recipes.pass_at_k.grade import NOTES, grade_all
from recipes.pass_at_k.report import by_samples, write
from recipes.pass_at_k.run import Items, answer_all
from recipes.pass_at_k.settings import Sampler, Study, load_study
from recipes.pass_at_k.store import Answer, Grade, Log, read
from recipes.pass_at_k.tasks import load
from recipes.server import serve

STAGES = ("answer", "grade", "report")


def check_folder(study: Study, samples: Path | None, out: Path) -> None:
    """Refuse a folder whose answers were made with settings that their keys do not name.

    Samplers, k, budgets, and the number of questions and samples may change between runs.

    Raises:
        ValueError: model, seed, or the kind, canvas or source of a task differ from the first
            run's.
    """
    tasks = {
        task.name: {
            "kind": task.kind,
            "max_tokens": task.max_tokens,
            "arguments": task.arguments,
            "source": str(samples) if samples else "hub",
        }
        for task in study.tasks
    }
    path = out / "study.json"
    first = msgspec.json.decode(path.read_bytes()) if path.exists() else {}
    now = {"model": study.model, "seed": study.seed}
    for name, value in now.items():
        if first.get(name, value) != value:
            raise ValueError(_other(out, name, first[name], value))
    for name, value in tasks.items():
        was = first.get("tasks", {}).get(name, value)
        if was != value:
            raise ValueError(_other(out, f"task {name}", was, value))
    path.write_bytes(msgspec.json.encode({**now, "tasks": first.get("tasks", {}) | tasks}))


def _other(out: Path, name: str, was: object, now: object) -> str:
    return f"{out} holds answers of {name} {was}, now it is {now}; name another folder by --out"


def answer(study: Study, items: Items, samplers: Sequence[Sampler], out: Path, url: str) -> None:
    """Ask for the answers that are missing."""
    log = Log(out / "answers.jsonl", Answer)
    try:
        asyncio.run(answer_all(study, items, samplers, url, log))
    finally:
        log.close()


def grade(study: Study, items: Items, out: Path) -> None:
    """Grade the answers that are not graded."""
    log = Log(out / "grades.jsonl", Grade)
    try:
        grade_all(read(out / "answers.jsonl", Answer).values(), items, study.grading, log)
    finally:
        log.close()


def report(study: Study, out: Path) -> None:
    """Write tables and plots of what is graded."""
    answers, grades = read(out / "answers.jsonl", Answer), read(out / "grades.jsonl", Grade)
    found = curves(study, answers.values(), grades)
    if not found:
        sys.exit(f"pass_at_k: {out} has no graded answers to these tasks and samplers")
    write(study, found, [NOTES[by] for by in sorted({one.by for one in grades.values()})], out)
    print(by_samples(study, found))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("settings", type=Path, help="TOML file of the study")
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    parser.add_argument("--base-url", help="http://HOST:PORT/v1 of a server; else one is started")
    parser.add_argument(
        "--samples", type=Path, metavar="FOLDER", help="take rows from FOLDER/TASK.jsonl"
    )
    parser.add_argument("--only", nargs="+", metavar="LABEL", help="samplers to ask; else all")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    args = parser.parse_args()
    # An orderly end for every way of being stopped: leaving `serve` stops the server.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    try:
        study = load_study(args.settings)
        labels = {sampler.label: sampler for sampler in study.samplers}
        if unknown := sorted(set(args.only or ()) - set(labels)):
            parser.error(f"unknown samplers {unknown}; known: {list(labels)}")
        args.out.mkdir(parents=True, exist_ok=True)
        check_folder(study, args.samples, args.out)
        items: Items = {task.name: load(task, args.samples) for task in study.tasks}
    except (msgspec.MsgspecError, ValueError, RuntimeError, OSError) as error:
        sys.exit(f"pass_at_k: {error}")
    chosen = [labels[label] for label in args.only or labels]
    if "answer" in args.stages:
        if args.base_url:
            answer(study, items, chosen, args.out, args.base_url)
        else:
            with serve(study.model, *study.serve) as server:
                answer(study, items, chosen, args.out, server.base_url)
    if "grade" in args.stages:
        grade(study, items, args.out)
    if "report" in args.stages:
        report(study, args.out)


if __name__ == "__main__":
    main()
