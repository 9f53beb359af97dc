"""The queue that carries steps from the engine core to a CPU worker, and their output back.

Who waits for the other looks at shared memory in a loop that yields the processor. The worker's
threads are on all cores that vLLM leaves them, so the loop takes a core from them, and the kernel
gives a process that has yielded for a while its next turn late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import zmq
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
from vllm.platforms import current_platform

from vllm_mdlm.compat.wrapping import wrap

MOST_PENDING = 1000
"""Notices that a queue keeps for a reader. A reader keeps the last alone, so few ever pend; but
with vLLM's bound of one, a notice that follows another within about a millisecond is dropped: the
writer has not been told yet that the first is gone."""

RECHECK_MS = 100
"""Milliseconds after which a reader looks at the shared memory again without a notice."""


def sleep_until_notified() -> None:
    """Let this process sleep until there is something to read, if the engine is on a CPU.

    For processes of an engine of ours; of all queues, so that it does not matter who makes them.
    """
    if not current_platform.is_cpu():
        return
    wrap(SpinCondition, "wait", _wait)
    wrap(SpinCondition, "notify", _notify)


def _wait(original: Callable[..., None]) -> Callable[..., None]:
    def wait(self: Any, timeout_ms: int | None = None) -> None:
        self.busy_loop_s = -1  # not even right behind a read
        original(self, RECHECK_MS if timeout_ms is None else min(timeout_ms, RECHECK_MS))

    return wait


def _notify(original: Callable[..., None]) -> Callable[..., None]:
    def notify(self: Any) -> None:
        self.local_notify_socket.setsockopt(zmq.SNDHWM, MOST_PENDING)
        original(self)

    return notify
