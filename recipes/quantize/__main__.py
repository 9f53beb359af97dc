"""Round the linear layers of a LLaDA to int8: a checkpoint for `vllm serve`, without calibration.

    python -m recipes.quantize CHECKPOINT --out FOLDER

CHECKPOINT is a folder in the published layout, its tensors in one file or in shards.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from compressed_tensors.entrypoints.convert import convert_checkpoint
from compressed_tensors.utils.safetensors_load import (
    get_checkpoint_files,
    get_quantization_config,
    get_weight_map,
)

from recipes.quantize.converter import Int8, linear_weights


def names_to_round(checkpoint: Path) -> frozenset[str]:
    """Names of the weights that are rounded, all of which the checkpoint has.

    Raises:
        ValueError: it is no LLaDA in the published layout, is quantised, or lacks files or tensors.
    """
    config_path = checkpoint / "config.json"
    if not config_path.is_file():
        raise ValueError(f"{checkpoint} is no checkpoint: it has no config.json")
    config = json.loads(config_path.read_text())
    if config.get("model_type") != "llada":
        raise ValueError(
            f"{config_path} has model_type {config.get('model_type')!r}; only 'llada' is known"
        )
    if (found := get_quantization_config(str(config_path))) is not None:
        method = found.get("quant_method", "an unknown method")
        raise ValueError(f"{checkpoint} is quantised already ({method}); name the original")
    tensors = get_weight_map(get_checkpoint_files(checkpoint))
    files = {name for name in tensors.values() if not (checkpoint / name).is_file()}
    if files:
        raise ValueError(
            f"{checkpoint} lacks {len(files)} of its files: {', '.join(sorted(files))}"
        )
    names = linear_weights(config["n_layers"])
    if missing := sorted(names - tensors.keys()):
        raise ValueError(
            f"{checkpoint} lacks {len(missing)} of {len(names)} weights that LLaDA's published "
            f"layout has for {config['n_layers']} layers, the first {missing[0]}"
        )
    return names


def quantize(checkpoint: Path, out: Path) -> None:
    """Write `out`, the checkpoint with its linear layers in int8 and all else as it is.

    Raises:
        ValueError: `out` exists or lies in the checkpoint; the checkpoint cannot be quantised.
    """
    if out.exists():
        raise ValueError(f"{out} exists; name a new folder by --out")
    if out.resolve().is_relative_to(checkpoint.resolve()):
        raise ValueError(f"{out} lies in the checkpoint itself; name a folder outside by --out")
    names = names_to_round(checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{out.name}.", dir=out.parent) as folder:
        unfinished = Path(folder) / out.name
        convert_checkpoint(checkpoint, unfinished, Int8(names))
        unfinished.rename(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="folder of a LLaDA")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; must not exist")
    args = parser.parse_args()
    try:
        quantize(args.checkpoint, args.out)
    except ValueError as error:
        parser.error(str(error))
    print(f"{args.out}: int8, ready for `vllm serve {args.out}`")


if __name__ == "__main__":
    main()
