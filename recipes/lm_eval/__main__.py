"""Evaluate a running server by lm-eval, on the two small tasks of this folder or on its own.

    python -m recipes.lm_eval --base-url http://localhost:8000/v1

The server needs VLLM_PLUGINS=mdlm for tasks of likelihoods. Run at the top of the repository.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

TASKS = Path(__file__).with_name("tasks")
OWN = ("mdlm_arithmetic_choice", "mdlm_arithmetic_words")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base-url", required=True, help="http://HOST:PORT/v1")
    parser.add_argument("--tasks", nargs="+", default=OWN)
    parser.add_argument("--limit", type=int, help="questions of every task; all without it")
    parser.add_argument("--mc-samples", type=int, default=128)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument(
        "--apply-chat-template", action="store_true", help="put contexts into the model's"
    )
    parser.add_argument(
        "--skip-greedy",
        action="store_true",
        help="do not ask whether greedy decoding writes a continuation, which few tasks read",
    )
    parser.add_argument(
        "--xargs", type=json.loads, default={}, help='as JSON, such as {"sampler": "threshold"}'
    )
    parser.add_argument("--out", type=Path, help="file for the results, JSON")
    args = parser.parse_args()

    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import make_table

    from recipes.lm_eval.model import MdlmServer

    model = MdlmServer(
        args.base_url,
        args.concurrency,
        args.mc_samples,
        greedy=not args.skip_greedy,
        **args.xargs,
    )
    results = simple_evaluate(
        model=model,
        tasks=list(args.tasks),
        limit=args.limit,
        apply_chat_template=args.apply_chat_template,
        # Reading the names of all of lm-eval's tasks takes long; these two need none.
        task_manager=TaskManager(
            include_path=str(TASKS), include_defaults=not set(args.tasks) <= set(OWN)
        ),
    )
    print(make_table(results))
    if args.out:
        args.out.write_text(json.dumps(results["results"], indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
