"""What the server must answer at temperature 0, by the reference network and loop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from tests.reference.generate import Generation, Settings, generate
from tests.reference.model import Llada


@dataclass(frozen=True)
class Answer:
    """`tokens` end before EOS or EoT. `passes`: forward passes until the last of them, or the
    stop token, is final."""

    text: str
    tokens: list[int]
    finish_reason: str
    passes: int
    canvas: Generation
    prompt: list[int]


class Oracle:
    """The reference on a checkpoint's folder; `block_length` is the default of a request."""

    def __init__(self, folder: Path, block_length: int) -> None:
        self.network = Llada.load(folder)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.block_length = block_length

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def chat(self, content: str) -> list[int]:
        """Tokens of a conversation of one user message."""
        return self.encode(
            "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\n"
            f"{content}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        )

    def answer(
        self, prompt: str | list[int], max_tokens: int, *, ignore_eos: bool = False, **settings: Any
    ) -> Answer:
        """The answer to a prompt; `settings` as in `Settings`, defaults as the server's."""
        ids = self.encode(prompt) if isinstance(prompt, str) else prompt
        block_length = settings.pop("block_length", self.block_length)
        gen_length = settings.pop("gen_length", -(-max_tokens // block_length) * block_length)
        canvas = generate(
            self.network, ids, Settings(gen_length, min(block_length, gen_length), **settings)
        )
        stops = {self.network.eos_token_id, self.network.eot_token_id}
        length = min(max_tokens, gen_length)
        ends = [i for i, token in enumerate(canvas.tokens[:length]) if token in stops]
        end = ends[0] if ends and not ignore_eos else None
        tokens = canvas.tokens[: length if end is None else end]
        decided = length if end is None else end + 1
        return Answer(
            text=self.decode(tokens),
            tokens=tokens,
            finish_reason="length" if end is None else "stop",
            passes=max(canvas.commit_pass[:decided]) + 1,
            canvas=canvas,
            prompt=ids,
        )

    def logprobs(self, answer: Answer, position: int) -> torch.Tensor:
        """Log-probabilities `[vocabulary]`, nats, at a canvas position in the pass that committed
        it."""
        committed = answer.canvas.commit_pass[position]
        canvas = [
            token if commit_pass < committed else self.network.mask_token_id
            for token, commit_pass in zip(
                answer.canvas.tokens, answer.canvas.commit_pass, strict=True
            )
        ]
        logits = self.network.logits(answer.prompt + canvas)
        return logits[len(answer.prompt) + position].double().log_softmax(dim=0)
