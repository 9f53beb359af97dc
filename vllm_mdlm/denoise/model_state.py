"""The seam to vLLM's model runner: what a pass feeds the model and which rows it reads back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from vllm.config import CompilationMode
from vllm.config.compilation import CUDAGraphMode
from vllm.v1.worker.gpu.attn_utils import build_attn_metadata
from vllm.v1.worker.gpu.model_states.interface import ModelState

from vllm_mdlm.admission import NUM_FINAL_KEY, PLAN_KEY
from vllm_mdlm.companion import COMPANION_KEY
from vllm_mdlm.compat import cpu_runner
from vllm_mdlm.compat.step_queue import sleep_until_notified
from vllm_mdlm.denoise.executor import DenoisingExecutor
from vllm_mdlm.denoise.passes import plan_pass
from vllm_mdlm.denoise.slots import INT, SlotTable, some
from vllm_mdlm.params import RequestPlan
from vllm_mdlm.spec import SpecialTokens

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.core.sched.output import NewRequestData
    from vllm.v1.kv_cache_interface import KVCacheConfig
    from vllm.v1.worker.gpu.block_table import BlockTables
    from vllm.v1.worker.gpu.input_batch import InputBatch
    from vllm.v1.worker.gpu.states import RequestState


def narrows(vllm_config: VllmConfig) -> bool:
    """Whether the last layer may leave out rows that nobody reads.

    Their number changes from pass to pass. A compiled network and a CUDA graph have a fixed number
    of rows in all layers, and LoRA's kernels read which adapter a row has by its place in the
    batch: with any of these all rows are computed, and those that are read taken out at the end.
    """
    compilation = vllm_config.compilation_config
    return (
        compilation.mode == CompilationMode.NONE
        and compilation.cudagraph_mode == CUDAGraphMode.NONE
        and vllm_config.lora_config is None
    )


class _Batch(NamedTuple):
    """What attention metadata depends on."""

    slots: bytes  # [R]
    query_starts: bytes  # [R + 1] int32
    seq_lens: bytes  # [R] int32, bounds
    num_tokens: int


class DenoisingModelState(ModelState):
    """Model state of a masked diffusion model under Model Runner V2."""

    # To the runner every pass is a prefill that ends in one row of logits; `prepare_inputs` then
    # names the rows that are really read.
    num_new_sampled_tokens_per_step = 1

    def __init__(
        self,
        vllm_config: VllmConfig,
        model: torch.nn.Module,
        encoder_cache: Any,
        device: torch.device,
    ) -> None:
        super().__init__(vllm_config, model, encoder_cache, device)
        sleep_until_notified()
        cpu_runner.register_step_kernels()
        hf_config = self.model_config.hf_config
        self.tokens = SpecialTokens(
            hf_config.mask_token_id, hf_config.eos_token_id, hf_config.eot_token_id
        )
        self.narrows = narrows(vllm_config)
        self.slots = SlotTable(self.max_num_reqs, device)
        self.executor = DenoisingExecutor(self.slots, self.tokens, hf_config.token_vocab_size)
        # Metadata holds views of the runner's buffers, so it serves as long as the batch is the
        # same; what a request is given in the cache changes only when it joins the batch.
        self._attention: tuple[_Batch, dict[str, Any]] | None = None
        self._any_cached = False  # in the batch: spans that start behind the first position

    def custom_sampler(self, sampler: Any) -> tuple[DenoisingExecutor, None]:
        self.executor.bind(sampler.req_states)
        return self.executor, None

    def initialize_kv_cache(
        self, kv_cache_config: KVCacheConfig, block_tables: BlockTables
    ) -> None:
        cpu_runner.replace_block_table_methods(block_tables)

    def add_request(self, req_index: int, new_req_data: NewRequestData) -> None:
        self._attention = None
        params = new_req_data.sampling_params
        arguments = (params.extra_args or {}) if params is not None else {}
        wire = arguments.get(PLAN_KEY)
        plan = None if wire is None else RequestPlan.from_wire(wire)
        if COMPANION_KEY in arguments or (plan is not None and plan.cfg_scale > 0):
            self.executor.companions.add(new_req_data.req_id, req_index)
        if params is None or plan is None:
            # Companions decide nothing, and vLLM's own warm-up requests have no canvas.
            is_companion = COMPANION_KEY in arguments
            known = len(new_req_data.prefill_token_ids or ()) if is_companion else 0
            self.executor.vacate(req_index, known)
            return
        assert new_req_data.prefill_token_ids is not None
        canvas = new_req_data.prefill_token_ids[new_req_data.prompt_len :]
        num_final = next(
            (index for index, token in enumerate(canvas) if token == self.tokens.mask), len(canvas)
        )
        if plan.template is not None:
            # Fixed text that was not sent is no mask, and what was left out is one.
            num_final = arguments.get(NUM_FINAL_KEY, 0)
        self.executor.add_canvas(req_index, plan, new_req_data.prompt_len, num_final, params)

    def remove_request(self, req_id: str) -> None:
        self.executor.companions.remove(req_id)

    def apply_staged_writes(self) -> None:
        self.executor.flush()

    def prepare_inputs(self, input_batch: InputBatch, req_states: RequestState) -> dict[str, Any]:
        """Choose the logits rows of the pass: the masked positions of every active block.

        Returns:
            What the model is called with beyond vLLM's own arguments.
        """
        if input_batch.req_ids[0] not in req_states.req_id_to_index:
            # vLLM's profiling and capture runs have no requests behind their rows.
            self._attention = None
            return {}
        view = plan_pass(
            self.slots,
            self.executor.templates,
            self.executor.companions,
            input_batch.idx_mapping,
            input_batch.idx_mapping_np,
            input_batch.query_start_loc[:-1],
            req_states.num_computed_tokens.gpu,
            req_states.all_token_ids.gpu,
            self.tokens.mask,
        )
        self.executor.view = view
        num_rows = len(view.query_indices)
        # A pass of companions alone reads nothing, and kernels need not take empty tensors.
        if not self.narrows or num_rows == 0:
            input_batch.logits_indices = view.query_indices
            return {}
        input_batch.logits_indices = torch.arange(num_rows, device=self.device)
        return {"read_rows": view.query_indices}

    def prepare_dummy_inputs(self, num_reqs: int, num_tokens: int) -> dict[str, Any]:
        return {}

    def prepare_inputs_embeds(self, *args: Any, **kwargs: Any) -> None:
        return None

    def prepare_attn(
        self,
        input_batch: InputBatch,
        cudagraph_mode: CUDAGraphMode,
        block_tables: tuple[torch.Tensor, ...],
        slot_mappings: torch.Tensor,
        attn_groups: Any,
        kv_cache_config: KVCacheConfig,
        for_capture: bool = False,
        ubatch_idx: int = 0,
    ) -> dict[str, Any]:
        """Attention of a span to all of prompt and canvas, in both directions."""
        full_graph = cudagraph_mode == CUDAGraphMode.FULL
        num_reqs = input_batch.num_reqs_after_padding if full_graph else input_batch.num_reqs
        num_tokens = input_batch.num_tokens_after_padding if full_graph else input_batch.num_tokens
        seq_lens, bound = self._sequence_lengths(input_batch)
        batch = _Batch(
            input_batch.idx_mapping_np.tobytes(),
            input_batch.query_start_loc_np[: num_reqs + 1].tobytes(),
            bound[:num_reqs].numpy().tobytes(),
            num_tokens,
        )
        reusable = cudagraph_mode == CUDAGraphMode.NONE and not for_capture and ubatch_idx == 0
        if reusable and self._attention is not None and self._attention[0] == batch:
            return self._attention[1]
        max_seq_len = self.max_model_len if for_capture else int(bound[:num_reqs].max())
        metadata = build_attn_metadata(
            attn_groups=attn_groups,
            num_reqs=num_reqs,
            num_tokens=num_tokens,
            query_start_loc_gpu=input_batch.query_start_loc[: num_reqs + 1],
            query_start_loc_cpu=torch.from_numpy(input_batch.query_start_loc_np[: num_reqs + 1]),
            max_query_len=int(input_batch.num_scheduled_tokens.max()),
            seq_lens=seq_lens,
            max_seq_len=max_seq_len,
            block_tables=block_tables,
            slot_mappings=slot_mappings,
            kv_cache_config=kv_cache_config,
            seq_lens_cpu_upper_bound=bound,
            positions=input_batch.positions,
            for_cudagraph_capture=for_capture,
            causal=False,
        )
        self._attention = (batch, metadata) if reusable else None
        return metadata

    def _sequence_lengths(self, input_batch: InputBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens that every request's span attends to, on the device and a bound on the host."""
        lengths, bound = input_batch.seq_lens, input_batch.seq_lens_cpu_upper_bound
        slots_np = input_batch.idx_mapping_np
        self._any_cached = some(self.slots.host.cached[slots_np])
        if not self._any_cached:
            return lengths, bound
        # A span ends before the canvas does; runs without requests have no such slot.
        num_reqs = input_batch.num_reqs
        ends = self.slots.ints[input_batch.idx_mapping, INT["canvas_end"]]
        lengths[:num_reqs] = torch.maximum(lengths[:num_reqs], ends.to(lengths.dtype))
        known = torch.from_numpy(self.slots.host.canvas_end[slots_np])
        bound[:num_reqs] = torch.maximum(bound[:num_reqs], known.to(bound.dtype))
        return lengths, bound

    def postprocess_state(
        self,
        idx_mapping: torch.Tensor,
        num_sampled: torch.Tensor,
        num_computed_tokens: torch.Tensor | None = None,
    ) -> None:
        """Next span's start, as the scheduler sets it on the host."""
        if num_computed_tokens is None:
            return
        if not self._any_cached:
            num_computed_tokens.index_fill_(0, idx_mapping, 0)
        else:
            num_computed_tokens[idx_mapping] = self.executor.next_starts(idx_mapping).to(
                num_computed_tokens.dtype
            )
