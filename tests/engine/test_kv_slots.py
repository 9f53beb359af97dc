"""A request is given its cache slots when it joins the batch."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from vllm.v1.request import RequestStatus

from vllm_mdlm.compat.kv_slots import keep_slots

NONE_NEW, NEW = object(), object()


@pytest.mark.parametrize(
    ("status", "given"),
    [
        (RequestStatus.WAITING, NEW),
        (RequestStatus.PREEMPTED, NEW),
        (RequestStatus.RUNNING, NONE_NEW),
    ],
)
def test_only_who_joins_is_given_slots(status: RequestStatus, given: object) -> None:
    manager = SimpleNamespace(
        allocate_slots=lambda request, count: NEW, empty_kv_cache_blocks=NONE_NEW
    )
    keep_slots(manager)  # type: ignore[arg-type]
    assert manager.allocate_slots(SimpleNamespace(status=status), 96) is given
