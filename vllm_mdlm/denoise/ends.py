"""How the end of an answer is sent."""

from __future__ import annotations

from collections.abc import Collection

from vllm.v1.engine import EngineCoreOutput, FinishReason


def end_after_text(
    outputs: list[EngineCoreOutput], trimmed: Collection[str]
) -> list[EngineCoreOutput]:
    """Send the last text of a request and its end apart.

    The detokenizer drops the last token of an output that ends with FinishReason.STOP, taking it
    for the stop token, which is already gone in requests whose ids are in `trimmed`.
    """
    result = []
    for output in outputs:
        result.append(output)
        if (
            output.request_id in trimmed
            and output.new_token_ids
            and output.finish_reason == FinishReason.STOP
        ):
            result.append(_ended(output))
            output.finish_reason = None
            output.stop_reason = None
    return result


def _ended(output: EngineCoreOutput) -> EngineCoreOutput:
    return EngineCoreOutput(
        request_id=output.request_id,
        new_token_ids=[],
        finish_reason=output.finish_reason,
        stop_reason=output.stop_reason,
        spec_decode_metrics=output.spec_decode_metrics,
        trace_headers=output.trace_headers,
    )
