"""Cache slots of a canvas: its first pass is given all of them, and no later one needs more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm.v1.request import Request, RequestStatus

if TYPE_CHECKING:
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks, KVCacheManager


def keep_slots(manager: KVCacheManager) -> None:
    """Look for cache slots when a request joins the batch, and not again in each of its passes."""
    original = manager.allocate_slots

    def allocate_slots(request: Request, *args: Any, **kwargs: Any) -> KVCacheBlocks | None:
        if request.status == RequestStatus.RUNNING:
            return manager.empty_kv_cache_blocks
        return original(request, *args, **kwargs)

    manager.allocate_slots = allocate_slots  # type: ignore[method-assign]
