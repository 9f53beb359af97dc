"""Typed decisions, vLLM's `/v1/systemone`: all questions of a request are answered in one canvas.

Every question has a masked position. What a label is worth there is its probability with the
other open questions masked; the question that is surest of its best label is answered first and
the rest are read again with that answer in place. So a question's probabilities are those of the
pass that answered it, as for any token that a sampler commits (low-confidence remasking, LLaDA,
arXiv 2502.09992, with the choice restricted to the labels).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from vllm.entrypoints.generate.structured_decisions.protocol import ReadPromptRequest
from vllm.entrypoints.generate.structured_decisions.question_types import (
    LABELS,
    Question,
    StructuredDecisionError,
    label_softmax,
)
from vllm.entrypoints.generate.structured_decisions.strategies import (
    DecisionLimits,
    QuestionRead,
    ReadStrategy,
)
from vllm.exceptions import GenerationError, VLLMValidationError
from vllm.sampling_params import RequestOutputKind, SamplingParams

from vllm_mdlm.results import scores

if TYPE_CHECKING:
    from vllm.inputs import EngineInput
    from vllm.lora.request import LoRARequest
    from vllm.outputs import RequestOutput
    from vllm.tokenizers import TokenizerLike

MAX_QUESTIONS = 16
"""Questions of a request (our choice): their number times that of the options is the number of
passes."""


class Blank(NamedTuple):
    """The line of the canvas that one question is answered on, in tokens."""

    before: list[int]
    labels: list[int]  # one for every option


class JointReadStrategy(ReadStrategy):
    """vLLM's `ReadStrategy` for masked diffusion models."""

    def limits(self) -> DecisionLimits:
        return DecisionLimits(max_questions=MAX_QUESTIONS, max_options=len(LABELS))

    def num_requests(self, questions: list[Question]) -> int:
        return max(len(question.labels) for question in questions)

    async def read(
        self,
        questions: list[Question],
        instructions: str | None,
        state: str,
        *,
        request_id: str,
        chat_template_kwargs: dict[str, Any] | None,
        lora_request: LoRARequest | None,
        priority: int,
        cache_salt: str | None = None,
        trace_headers: Mapping[str, str] | None = None,
        media: Mapping[str, Sequence[str]] | None = None,
    ) -> list[QuestionRead]:
        user = user_turn(state, questions)
        asked = user + "".join(question.id for question in questions)
        texts = {"state": state, "questions": asked, "instructions": instructions or ""}
        check_unicode(texts | {"cache_salt": cache_salt or "", "request_id": request_id})
        messages = [{"role": "user", "content": user}]
        if instructions:
            messages.insert(0, {"role": "system", "content": instructions})
        request = ReadPromptRequest(
            chat_template_kwargs=chat_template_kwargs, cache_salt=cache_salt
        )
        prompt = await self._render(request, messages)
        tokenizer = self.context.online_renderer.renderer.get_tokenizer()
        blanks = canvas_lines(tokenizer, questions)
        asker = _Asker(self, prompt, request_id, lora_request, priority, trace_headers)
        reads: dict[int, QuestionRead] = {}
        answers: dict[int, int] = {}
        while len(reads) < len(questions):
            found = await asker.ask(blanks, answers)
            best = max(found, key=lambda index: max(found[index].logprobs))
            answers[best] = found[best].best
            first = not reads
            reads[best] = QuestionRead(
                probs=label_softmax(found[best].logprobs),
                label_mass=math.fsum(map(math.exp, found[best].logprobs)),
                argmax_is_label=found[best].argmax in blanks[best].labels,
                input_tokens=len(prompt["prompt_token_ids"]) if first else 0,
                output_tokens=1,
            )
        return [reads[index] for index in range(len(questions))]

    async def _render(self, request: ReadPromptRequest, messages: list[dict[str, Any]]) -> Any:
        context = self.context
        _, (prompt,) = await context.online_renderer.preprocess_chat(
            request,
            messages,
            default_template=context.chat_template,
            default_template_content_format=context.chat_template_content_format,
            default_template_kwargs=context.default_chat_template_kwargs,
        )
        return prompt

    def end_of_turn(self) -> list[int]:
        """What follows the last label: with it in the canvas the reply is the labels alone."""
        hf_config = self.context.engine_client.model_config.hf_config
        ends = (hf_config.eot_token_id, hf_config.eos_token_id)
        return [next(token for token in ends if token is not None)]


class Labels(NamedTuple):
    """What the model says of one question."""

    logprobs: list[float]  # of its labels, nats, over the whole vocabulary
    argmax: int  # the most probable token of the vocabulary
    best: int  # token of the most probable label


def check_unicode(fields: Mapping[str, str]) -> None:
    """Refuse what no message can carry: JSON can escape half a surrogate pair.

    Raises:
        StructuredDecisionError: names the first such field.
    """
    for name, text in fields.items():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise StructuredDecisionError(
                f"{name}: got {text[error.start]!a}, half a surrogate pair; must be valid Unicode"
            ) from None


def user_turn(state: str, questions: Sequence[Question]) -> str:
    """The state and the questions, in vLLM's words; several are numbered."""
    if len(questions) == 1:
        return f"{state}\n\n{questions[0].type.prompt(questions[0])}"
    numbered = [f"{i}. {one.type.prompt(one)}" for i, one in enumerate(questions, start=1)]
    return "\n\n".join([state, *numbered, "Answer every question on a line of its own."])


def canvas_lines(tokenizer: TokenizerLike, questions: Sequence[Question]) -> list[Blank]:
    """The line of every question: its number, where there are several, and the label.

    Raises:
        StructuredDecisionError: a label is not one token of its own there.
    """
    blanks = []
    for number, question in enumerate(questions, start=1):
        head = f"{number}:" if len(questions) > 1 else ""
        head = head if number == 1 else f"\n{head}"
        # A space belongs to the label's token in most vocabularies, and is its own in others.
        ways = [(head, " "), (f"{head} ", "")] if head else [("", "")]
        found = (_label_tokens(tokenizer, *way, question.labels) for way in ways)
        blank = next((one for one in found if one is not None), None)
        if blank is None:
            raise StructuredDecisionError(
                f"question {question.id!r}: the labels {', '.join(question.labels)} are not one "
                "distinct token each for this model"
            )
        blanks.append(blank)
    return blanks


def _label_tokens(
    tokenizer: TokenizerLike, head: str, gap: str, labels: Sequence[str]
) -> Blank | None:
    before = list(tokenizer.encode(head, add_special_tokens=False)) if head else []
    tokens: list[int] = []
    for label in labels:
        encoded = list(tokenizer.encode(head + gap + label, add_special_tokens=False))
        if encoded[:-1] != before or encoded[-1] in tokens:
            return None
        tokens.append(encoded[-1])
    return Blank(before, tokens)


class _Asker:
    """Asks the engine for the labels of one request."""

    def __init__(
        self,
        strategy: JointReadStrategy,
        prompt: EngineInput,
        request_id: str,
        lora_request: LoRARequest | None,
        priority: int,
        trace_headers: Mapping[str, str] | None,
    ) -> None:
        self._engine = strategy.context.engine_client
        self._end = strategy.end_of_turn()
        self._prompt = prompt
        self._request_id = request_id
        self._options: dict[str, Any] = {
            "lora_request": lora_request,
            "priority": priority,
            "trace_headers": trace_headers,
        }
        self._asked = 0

    async def ask(self, blanks: Sequence[Blank], answers: Mapping[int, int]) -> dict[int, Labels]:
        """Labels of every open question, all of them masked; `answers` are tokens by question."""
        open_questions = [index for index in range(len(blanks)) if index not in answers]
        rounds = max(len(blanks[index].labels) for index in open_questions)
        outputs = await asyncio.gather(
            *(self._score(blanks, answers, option) for option in range(rounds))
        )
        found = {}
        for place, index in enumerate(open_questions):
            labels = blanks[index].labels
            logprobs = [outputs[option][0][place] for option in range(len(labels))]
            best = max(range(len(labels)), key=logprobs.__getitem__)
            found[index] = Labels(logprobs, outputs[0][1][place], labels[best])
        return found

    async def _score(
        self, blanks: Sequence[Blank], answers: Mapping[int, int], option: int
    ) -> tuple[list[float], list[int]]:
        """Log-probability of one option of every open question, and the most probable tokens."""
        items: list[Any] = []
        places = []
        position = 0
        for index, blank in enumerate(blanks):
            items += [blank.before] if blank.before else []
            position += len(blank.before)
            if index in answers:
                items.append([answers[index]])
            else:
                label = blank.labels[min(option, len(blank.labels) - 1)]
                items.append({"mask": 1, "target": [label]})
                places.append(position)
            position += 1
        items.append(self._end)
        params = SamplingParams(
            temperature=0.0,
            logprobs=1,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args={"template": items},
        )
        self._asked += 1
        output = await self._finish(params, f"{self._request_id}-{self._asked}")
        found = scores(output)
        assert found is not None
        tops = [max(output.logprobs[at].items(), key=lambda one: one[1].logprob) for at in places]
        return found, [token for token, _ in tops]

    async def _finish(self, params: SamplingParams, request_id: str) -> Any:
        last: RequestOutput | None = None
        try:
            async for output in self._engine.generate(
                self._prompt, params, request_id, **self._options
            ):
                last = output
        except VLLMValidationError as error:
            raise StructuredDecisionError(f"state: {error}") from error
        if last is None or last.outputs[0].finish_reason == "error":
            raise GenerationError
        return last.outputs[0]
