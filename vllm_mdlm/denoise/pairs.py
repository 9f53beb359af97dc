"""Guided requests and their companions in the queue of those that wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vllm.v1.request import Request, RequestStatus

if TYPE_CHECKING:
    from vllm.v1.core.sched.request_queue import RequestQueue

FIRST = -(2**63)
"""A priority before all that a caller can send."""


def hurry_companions(
    companion_of: Mapping[str, str], requests: Mapping[str, Request], waiting: RequestQueue
) -> None:
    """Let the companion of a running request go before all others that wait.

    By their priorities another guided request could take the last place, and both would wait for
    their companions without end.

    Args:
        companion_of: request id of a companion -> its request's.
        requests: all of them, by id; the priority of a companion is changed.
        waiting: the queue, which is reordered.
    """
    for companion_id, request_id in companion_of.items():
        companion, request = requests[companion_id], requests[request_id]
        waits = companion.status != RequestStatus.RUNNING
        ahead = waits and request.status == RequestStatus.RUNNING
        priority = FIRST if ahead else request.priority
        if companion.priority == priority:
            continue
        if waits:
            waiting.remove_request(companion)
        companion.priority = priority
        if waits:
            waiting.prepend_request(companion)
