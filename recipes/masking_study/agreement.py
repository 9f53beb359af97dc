"""How far the answers of two decoders agree, answer by answer.

    python -m recipes.masking_study.agreement runs/addition

Decode a study with ``--decoder torch`` and with ``--decoder plugin`` first.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

from recipes.masking_study.run import DECODERS, answers_path

Answers = dict[tuple[str, int | None], list[str]]


def read_answers(path: Path) -> Answers:
    """The answers of a run by order and stratum."""
    lines = map(json.loads, path.read_text().splitlines())
    return {(line["order"], line["difficulty"]): line["answers"] for line in lines}


def agreement(first: Answers, second: Answers) -> dict[str, tuple[int, int]]:
    """(equal, all) answers by order, of the orders that both have."""
    counts = defaultdict[str, list[int]](lambda: [0, 0])
    for key in first.keys() & second.keys():
        pairs = list(zip(first[key], second[key], strict=True))
        counts[key[0]][0] += sum(a == b for a, b in pairs)
        counts[key[0]][1] += len(pairs)
    return {order: (equal, count) for order, (equal, count) in sorted(counts.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the study")
    args = parser.parse_args()
    print("| run | order | equal answers |\n| --- | --- | --- |")
    for folder in sorted(path for path in args.out.iterdir() if path.is_dir()):
        paths = [answers_path(folder, decoder) for decoder in DECODERS]
        if all(path.exists() for path in paths):
            found = agreement(*map(read_answers, paths))
            for order, (equal, count) in found.items():
                print(f"| {folder.name} | {order} | {equal} of {count} |")


if __name__ == "__main__":
    main()
