"""The names of vLLM 0.32.0 that this package relies on beyond vLLM's documented interfaces.

Where one is gone or has other parameters, read its replacement in vLLM and change the module of
ours that stands beside it.
"""

from __future__ import annotations

SIGNATURES = {
    # compat/front_end.py wraps these.
    ("vllm.sampling_params", "SamplingParams._validate_diffusion"): "model_config",
    ("vllm.sampling_params", "SamplingParams._validate_structured_outputs"): (
        "model_config structured_outputs_config tokenizer"
    ),
    ("vllm.sampling_params", "SamplingParams.clone"): "",
    ("vllm.v1.engine.input_processor", "InputProcessor.process_inputs"): (
        "request_id prompt params supported_tasks arrival_time lora_request tokenization_kwargs "
        "trace_headers priority data_parallel_rank resumable session_id kv_hints"
    ),
    ("vllm.v1.engine.async_llm", "AsyncLLM.generate"): (
        "prompt sampling_params request_id prompt_text lora_request tokenization_kwargs "
        "trace_headers priority data_parallel_rank session_id kv_hints reasoning_ended "
        "reasoning_parser_kwargs"
    ),
    (
        "vllm.entrypoints.openai.chat_completion.serving",
        "OpenAIServingChat.chat_completion_full_generator",
    ): (
        "request result_generator request_id model_name conversation tokenizer request_metadata "
        "parser mm_token_counts"
    ),
    (
        "vllm.entrypoints.openai.chat_completion.serving",
        "OpenAIServingChat.chat_completion_stream_generator",
    ): (
        "request result_generator request_id model_name conversation tokenizer request_metadata "
        "chat_template_kwargs mm_token_counts"
    ),
    (
        "vllm.entrypoints.openai.completion.serving",
        "OpenAIServingCompletion.request_output_to_completion_response",
    ): ("final_res_batch request request_id created_time model_name tokenizer request_metadata"),
    (
        "vllm.entrypoints.openai.completion.serving",
        "OpenAIServingCompletion.completion_stream_generator",
    ): (
        "request engine_inputs result_generator request_id created_time model_name num_prompts "
        "tokenizer request_metadata"
    ),
    ("vllm.entrypoints.generate.beam_search.offline", "BeamSearchOfflineMixin.beam_search"): (
        "prompts params lora_request use_tqdm concurrency_limit"
    ),
    # compat/refusals.py wraps these, and AsyncLLM.generate.
    ("vllm.v1.engine.input_processor", "InputProcessor._validate_model_inputs"): (
        "encoder_input decoder_input"
    ),
    (
        "vllm.entrypoints.openai.completion.serving",
        "OpenAIServingCompletion.create_completion",
    ): "request raw_request",
    (
        "vllm.entrypoints.openai.chat_completion.serving",
        "OpenAIServingChat.create_chat_completion",
    ): "request raw_request",
    (
        "vllm.entrypoints.openai.chat_completion.batch_serving",
        "OpenAIServingChatBatch.create_batch_chat_completion",
    ): "request raw_request",
    (
        "vllm.entrypoints.openai.responses.serving",
        "OpenAIServingResponses.create_responses",
    ): "request raw_request",
    ("vllm.entrypoints.serve.engine.serving", "BaseServing._extract_prompt_text"): "prompt",
    (
        "vllm.entrypoints.openai.responses.serving",
        "OpenAIServingResponses._generate_with_builtin_tools",
    ): (
        "request_id engine_input sampling_params context tok_params lora_request priority "
        "trace_headers session_id reasoning_parser_kwargs"
    ),
    ("vllm.entrypoints.serve.utils.api_utils", "get_max_tokens"): (
        "max_model_len max_tokens input_length default_sampling_params override_max_tokens "
        "truncate_prompt_tokens"
    ),
    # compat/registration.py
    ("vllm.config.vllm", "VllmConfig.use_v2_model_runner"): "",
    ("vllm.config.vllm", "VllmConfig._validate_v2_model_runner"): "",
    ("vllm.config.vllm", "VllmConfig._get_v2_model_runner_unsupported_features"): "",
    ("vllm.engine.arg_utils", "EngineArgs.get_batch_defaults"): "world_size",
    ("vllm.tokenizers.registry", "cached_tokenizer_from_config"): "model_config",
    # compat/requests.py
    ("vllm.v1.core.sched.utils", "check_stop"): "request max_model_len",
    ("vllm.v1.metrics.stats", "RequestSpecDecodeMetrics.new"): "num_spec_tokens",
    ("vllm.v1.metrics.stats", "RequestSpecDecodeMetrics.observe"): (
        "num_draft_tokens num_accepted detailed"
    ),
    # compat/cpu_runner.py
    ("vllm.triton_utils.dispatcher", "register_kernels"): "overrides",
    ("vllm.v1.worker.gpu.block_table", "BlockTables.gather_block_tables"): (
        "idx_mapping num_reqs_padded out out_ptrs"
    ),
    ("vllm.v1.worker.gpu.block_table", "BlockTables.compute_slot_mappings"): (
        "idx_mapping query_start_loc positions num_tokens_padded out"
    ),
    # compat/kv_slots.py wraps this.
    ("vllm.v1.core.kv_cache_manager", "KVCacheManager.allocate_slots"): (
        "request num_new_tokens num_new_computed_tokens new_computed_blocks num_lookahead_tokens "
        "num_external_computed_tokens delay_cache_blocks num_encoder_tokens "
        "full_sequence_must_fit reserved_blocks has_scheduled_reqs skip_zeroing_group_ids"
    ),
    # compat/step_queue.py wraps these.
    ("vllm.distributed.device_communicators.shm_broadcast", "SpinCondition.wait"): "timeout_ms",
    ("vllm.distributed.device_communicators.shm_broadcast", "SpinCondition.notify"): "",
    # denoise/scheduler.py overrides these.
    ("vllm.v1.core.sched.scheduler", "Scheduler.add_request"): "request",
    ("vllm.v1.core.sched.scheduler", "Scheduler.schedule"): "throttle_prefills",
    ("vllm.v1.core.sched.scheduler", "Scheduler._update_after_schedule"): "scheduler_output",
    ("vllm.v1.core.sched.scheduler", "Scheduler.update_from_output"): (
        "scheduler_output model_runner_output"
    ),
    ("vllm.v1.core.sched.scheduler", "Scheduler._update_request_with_output"): (
        "request new_token_ids is_stale"
    ),
    ("vllm.v1.core.sched.scheduler", "Scheduler.make_stats"): (
        "spec_decoding_stats kv_connector_stats cudagraph_stats perf_stats ec_connector_stats"
    ),
    # denoise/model_state.py overrides these, and calls the last.
    ("vllm.v1.worker.gpu.model_states.interface", "ModelState.__init__"): (
        "vllm_config model encoder_cache device"
    ),
    ("vllm.v1.worker.gpu.model_states.interface", "ModelState.custom_sampler"): "sampler",
    ("vllm.v1.worker.gpu.model_states.interface", "ModelState.initialize_kv_cache"): (
        "kv_cache_config block_tables"
    ),
    ("vllm.v1.worker.gpu.model_states.interface", "ModelState.add_request"): (
        "req_index new_req_data"
    ),
    ("vllm.v1.worker.gpu.model_states.interface", "ModelState.apply_staged_writes"): "",
    ("vllm.v1.worker.gpu.model_states.interface", "ModelState.prepare_inputs"): (
        "input_batch req_states"
    ),
    ("vllm.v1.worker.gpu.model_states.interface", "ModelState.prepare_dummy_inputs"): (
        "num_reqs num_tokens"
    ),
    ("vllm.v1.worker.gpu.model_states.interface", "ModelState.prepare_inputs_embeds"): (
        "scheduled_encoder_inputs input_batch req_states"
    ),
    ("vllm.v1.worker.gpu.model_states.interface", "ModelState.prepare_attn"): (
        "input_batch cudagraph_mode block_tables slot_mappings attn_groups kv_cache_config "
        "for_capture ubatch_idx"
    ),
    ("vllm.v1.worker.gpu.model_states.interface", "ModelState.postprocess_state"): (
        "idx_mapping num_sampled num_computed_tokens"
    ),
    ("vllm.v1.worker.gpu.attn_utils", "build_attn_metadata"): (
        "attn_groups num_reqs num_tokens query_start_loc_gpu query_start_loc_cpu max_query_len "
        "seq_lens max_seq_len block_tables slot_mappings kv_cache_config seq_lens_cpu_upper_bound "
        "dcp_local_seq_lens dcp_local_seq_lens_cpu_upper_bound positions is_prefilling "
        "mm_req_doc_ranges model_specific_attn_metadata for_cudagraph_capture causal "
        "rswa_prefix_lens ubatch_idx fast_prefill req_idx"
    ),
    # routes/door.py, routes/answering.py and routes/infill.py call these.
    (
        "vllm.entrypoints.openai.completion.serving",
        "OpenAIServingCompletion.render_completion_request",
    ): "request",
    (
        "vllm.entrypoints.openai.chat_completion.serving",
        "OpenAIServingChat.render_chat_request",
    ): "request",
    (
        "vllm.entrypoints.openai.completion.protocol",
        "CompletionRequest.to_sampling_params",
    ): "max_tokens default_sampling_params",
    (
        "vllm.entrypoints.openai.chat_completion.protocol",
        "ChatCompletionRequest.to_sampling_params",
    ): "max_tokens default_sampling_params",
    ("vllm.entrypoints.serve.utils.api_utils", "with_cancellation"): "handler_func",
    ("vllm.entrypoints.serve.utils.api_utils", "load_aware_call"): "func",
    ("vllm.entrypoints.serve.utils.api_utils", "validate_json_request"): "raw_request",
    ("vllm.entrypoints.serve.utils.sse_keep_alive", "with_sse_keep_alive"): "generator interval",
    (
        "vllm.entrypoints.serve.exception_handling.error_response",
        "create_error_response",
    ): "message err_type status_code param",
    ("vllm.plugins.endpoint_plugins.interface", "EndpointPlugin.attach_router"): "app",
    ("vllm.plugins.endpoint_plugins.interface", "EndpointPlugin.init_state"): (
        "engine_client state args"
    ),
    # decisions.py
    (
        "vllm.entrypoints.generate.structured_decisions.strategies",
        "ReadStrategy.read",
    ): (
        "questions instructions state request_id chat_template_kwargs lora_request priority "
        "cache_salt trace_headers media"
    ),
    (
        "vllm.entrypoints.generate.structured_decisions.strategies",
        "ReadStrategy.num_requests",
    ): "questions",
    ("vllm.entrypoints.generate.structured_decisions.question_types", "label_softmax"): "logprobs",
    ("vllm.renderers.online_renderer", "OnlineRenderer.preprocess_chat"): (
        "request messages default_template default_template_content_format "
        "default_template_kwargs tool_dicts parser skip_mm_cache"
    ),
}
"""(module, function) -> its parameters."""

ATTRIBUTES = {
    # compat/front_end.py, admission.py
    ("vllm.sampling_params", "SamplingParams"): "max_tokens seed extra_args",
    ("vllm.config.model", "ModelConfig"): (
        "architectures hf_config max_model_len override_generation_config skip_tokenizer_init"
    ),
    ("vllm.config.vllm", "VllmConfig"): "additional_config model_config scheduler_config",
    ("vllm.v1.engine.input_processor", "InputProcessor"): "model_config vllm_config",
    ("vllm.v1.engine.async_llm", "AsyncLLM"): "model_config vllm_config input_processor",
    ("vllm.entrypoints.openai.chat_completion.serving", "OpenAIServingChat"): (
        "default_sampling_params"
    ),
    ("vllm.entrypoints.openai.completion.serving", "OpenAIServingCompletion"): (
        "default_sampling_params"
    ),
    ("vllm.entrypoints.openai.responses.serving", "OpenAIServingResponses"): (
        "default_sampling_params"
    ),
    # compat/refusals.py
    ("vllm.exceptions", "VLLMValidationError"): "parameter value",
    ("vllm.entrypoints.serve.engine.protocol", "ErrorResponse"): "error",
    ("vllm.entrypoints.serve.engine.protocol", "ErrorInfo"): "message param",
    ("vllm.entrypoints.openai.completion.protocol", "CompletionRequest"): (
        "prompt max_tokens logprobs prompt_logprobs echo response_format structured_outputs "
        "use_beam_search vllm_xargs"
    ),
    ("vllm.entrypoints.openai.chat_completion.protocol", "ChatCompletionRequest"): (
        "messages max_tokens max_completion_tokens logprobs top_logprobs prompt_logprobs echo "
        "response_format structured_outputs tool_choice use_beam_search vllm_xargs"
    ),
    ("vllm.v1.engine", "EngineCoreRequest"): "sampling_params prompt_token_ids resumable",
    ("vllm.outputs", "CompletionOutput"): "routed_experts spec_decode_metrics",
    # compat/requests.py
    ("vllm.v1.request", "Request"): (
        "_all_token_ids _output_token_ids num_tokens num_prompt_tokens num_output_tokens "
        "num_tokens_with_spec num_computed_tokens is_prefill_chunk spec_decode_metrics "
        "next_decode_eligible_step"
    ),
    ("vllm.v1.metrics.stats", "RequestSpecDecodeMetrics"): "histogram num_draft_tokens",
    # compat/cpu_kernels.py
    ("vllm.v1.worker.gpu.block_table", "BlockTables"): (
        "block_sizes block_tables cp_size input_block_tables num_blocks slot_mappings"
    ),
    # compat/kv_slots.py
    ("vllm.v1.core.kv_cache_manager", "KVCacheManager"): "empty_kv_cache_blocks",
    # compat/step_queue.py
    ("vllm.distributed.device_communicators.shm_broadcast", "SpinCondition"): (
        "busy_loop_s local_notify_socket"
    ),
    # denoise/scheduler.py
    ("vllm.v1.core.sched.scheduler", "Scheduler"): (
        "current_step kv_cache_manager log_stats max_model_len max_num_scheduled_tokens requests "
        "running vllm_config waiting kv_holding_waiting"
    ),
    ("vllm.v1.engine", "EngineCoreOutput"): (
        "request_id new_token_ids finish_reason stop_reason spec_decode_metrics "
        "trace_headers routed_experts"
    ),
    ("vllm.v1.spec_decode.metrics", "SpecDecodingStats"): (
        "num_spec_tokens num_drafts num_draft_tokens num_accepted_tokens"
    ),
    # denoise/model_state.py, denoise/executor.py
    ("vllm.v1.worker.gpu.model_states.interface", "ModelState"): (
        "model_config max_num_reqs max_model_len num_new_sampled_tokens_per_step"
    ),
    ("vllm.v1.core.sched.output", "NewRequestData"): (
        "sampling_params prefill_token_ids prompt_len"
    ),
    ("vllm.v1.worker.gpu.input_batch", "InputBatch"): (
        "idx_mapping idx_mapping_np logits_indices num_reqs num_reqs_after_padding "
        "num_scheduled_tokens num_tokens num_tokens_after_padding positions query_start_loc "
        "query_start_loc_np seq_lens seq_lens_cpu_upper_bound"
    ),
    ("vllm.v1.worker.gpu.states", "RequestState"): ("all_token_ids num_computed_tokens total_len"),
    ("vllm.v1.worker.gpu.sample.sampler", "Sampler"): "req_states",
    ("vllm.v1.worker.gpu.sample.output", "SamplerOutput"): (
        "sampled_token_ids logprobs_tensors num_nans num_sampled num_rejected"
    ),
    ("vllm.v1.outputs", "LogprobsTensors"): (
        "logprob_token_ids logprobs selected_token_ranks cu_num_generated_tokens"
    ),
    # routes/door.py
    ("vllm.entrypoints.openai.models.serving", "OpenAIServingModels"): "lora_requests model_name",
    # decisions.py
    ("vllm.entrypoints.generate.structured_decisions.strategies", "ReadContext"): (
        "engine_client online_renderer chat_template chat_template_content_format "
        "default_chat_template_kwargs"
    ),
    ("vllm.entrypoints.generate.structured_decisions.strategies", "QuestionRead"): (
        "probs label_mass argmax_is_label input_tokens output_tokens"
    ),
    ("vllm.entrypoints.generate.structured_decisions.strategies", "DecisionLimits"): (
        "max_questions max_options"
    ),
    ("vllm.entrypoints.generate.structured_decisions.question_types", "Question"): (
        "id type labels"
    ),
    ("vllm.entrypoints.generate.structured_decisions.protocol", "ReadPromptRequest"): (
        "chat_template_kwargs cache_salt"
    ),
}
"""(module, class) -> attributes that are read or written."""

GLOBALS = {
    # compat/front_end.py
    "vllm.entrypoints.generate.structured_decisions.strategies": "READ_STRATEGIES",
    "vllm.model_executor.models.config": "MODELS_CONFIG_MAP",  # compat/registration.py
    "vllm.triton_utils": "HAS_TRITON triton",  # compat/cpu_runner.py
}
"""Module -> names in it."""

SAMPLER_ATTRIBUTES = {
    "add_request",
    "apply_staged_writes",
    "compute_nans",
    "get_logprobs_dims",
    "penalties_state",
    "sampling_states",
}
"""What vLLM's model runner reads from the sampler. `DenoisingExecutor` has the first two and
`penalties_state`; the others belong to paths that a denoising model does not take."""
