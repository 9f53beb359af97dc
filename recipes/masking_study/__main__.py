"""Train and evaluate the schemes of a masking study, then write its table and plot.

    python -m recipes.masking_study recipes/masking_study/addition_small.toml --out runs/addition

Start the same command again to go on after a kill; ``--only`` limits it to some schemes.
"""

import argparse
from pathlib import Path

import torch

from recipes.masking_study.report import curves, plot, read_results, table
from recipes.masking_study.run import DECODERS, evaluate, results_path, run_folder, train
from recipes.masking_study.settings import load_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    parser.add_argument("--only", nargs="*", help="schemes to run; all without it")
    parser.add_argument("--decoder", choices=DECODERS, default="torch")
    parser.add_argument("--again", action="store_true", help="decode runs that have results too")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    study = load_study(args.settings)
    unknown = set(args.only or ()) - set(study.schemes)
    if unknown:
        parser.error(f"unknown schemes {sorted(unknown)}; known: {sorted(study.schemes)}")
    for seed in study.seeds:
        for scheme in args.only or study.schemes:
            folder = run_folder(args.out, scheme, seed)
            if args.again or not results_path(folder, args.decoder).exists():
                train(study, scheme, seed, args.out)
                evaluate(study, scheme, seed, args.out, args.decoder)
    results = read_results(args.out, args.decoder)
    (args.out / f"table-{args.decoder}.md").write_text(table(results))
    plot(results, args.out / f"accuracy-{args.decoder}.png")
    curves(args.out, args.out / "curves.png")
    print(table(results))


if __name__ == "__main__":
    main()
