"""Guided requests and their companions in the queues of those that wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vllm.v1.request import Request, RequestStatus

if TYPE_CHECKING:
    from vllm.v1.core.sched.request_queue import RequestQueue


def hurry_companions(
    companion_of: Mapping[str, str],
    requests: Mapping[str, Request],
    waiting: RequestQueue,
    first: RequestQueue,
) -> None:
    """Let the companion of a running request go before all others that wait.

    By their priorities another guided request could take the last place, and both would wait for
    their companions without end. And while vLLM lets no new request run (a pause that waits for
    those that do), a companion left among the new ones would keep its request from ending.

    Args:
        companion_of: request id of a companion -> its request's.
        requests: all of them, by id.
        waiting: the queue of new requests; changed, as is `first`.
        first: the queue from which vLLM takes before the other, and in a pause too.
    """
    for companion_id, request_id in companion_of.items():
        companion = requests[companion_id]
        if companion.status == RequestStatus.RUNNING:
            continue
        ahead = requests[request_id].status == RequestStatus.RUNNING
        source, target = (waiting, first) if ahead else (first, waiting)
        if companion in source:
            source.remove_request(companion)
            target.prepend_request(companion)
