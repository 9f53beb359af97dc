"""Operations over logits rows."""

from vllm_mdlm.kernels.filters import filter_logits
from vllm_mdlm.kernels.row_stats import RowStats, row_stats

__all__ = ["RowStats", "filter_logits", "row_stats"]
