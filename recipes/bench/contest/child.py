"""A contender's process: orders on standard input, reports on what was standard output.

python -m recipes.bench.contest.child NAME SETTING_AS_JSON
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from typing import BinaryIO

import msgspec
import torch

from recipes.bench.contest.contenders import Contender, Setting, load
from recipes.bench.contest.messages import Failure, Lap, Order, Ready, Report


def private_output() -> BinaryIO:
    """The standard output, for reports alone: whatever else prints goes to standard error."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return output


def send(output: BinaryIO, report: Report) -> None:
    output.write(msgspec.json.encode(report) + b"\n")
    output.flush()


def carry_out(contender: Contender, order: Order) -> Lap | Failure:
    try:
        begun = time.perf_counter()
        answers = contender.run(order.cell, order.prompts)
        return Lap(time.perf_counter() - begun, answers)
    except Exception as error:
        traceback.print_exc()
        return Failure(f"{type(error).__name__}: {error}")


def main(name: str, setting: Setting) -> None:
    output = private_output()
    contender = load(name, setting)
    send(output, Ready(dict(contender.versions), torch.get_num_threads()))
    for line in sys.stdin.buffer:
        send(output, carry_out(contender, msgspec.json.decode(line, type=Order)))


if __name__ == "__main__":
    main(sys.argv[1], msgspec.json.decode(sys.argv[2], type=Setting))
