"""The training loop: one run in one folder, to be started again after a kill with the same
command.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from tqdm import tqdm

from recipes.train.data import Batch, Source
from recipes.train.layout import read_model
from recipes.train.masking import block_mask, chain_mask, mean_masked, papl_weights, random_mask
from recipes.train.model import LLaDA
from recipes.train.optim import Average, build_optimizers, schedule, set_rate
from recipes.train.puma import PumaBuffer
from recipes.train.settings import PaplMasking, PumaMasking, RandomMasking, Settings

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"

Probe = Callable[[LLaDA], Mapping[str, float]]
"""Measures the averaged model; its numbers go to the log."""


class Trainer:
    """Model, optimiser, average and position of a run.

    Batches, masks and dropout of a step are functions of (seed, step), and everything else is in
    the checkpoint: a run killed at any moment and started again gives the losses of an unbroken
    one.
    """

    def __init__(self, settings: Settings, source: Source, mask_id: int, folder: Path) -> None:
        self.settings, self.source, self.mask_id, self.folder = settings, source, mask_id, folder
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(settings.run.seed)
        self.model = start_model(settings).to(self.device)
        self.predict = torch.compile(self.model) if settings.run.compile else self.model
        self.optimizers = build_optimizers(self.model, settings.optim)
        self.average = Average(self.model, settings.optim.ema)
        self.step = 0
        scheme = settings.masking
        self.puma = None
        if isinstance(scheme, PumaMasking):
            self.puma = PumaBuffer(scheme, source, settings.optim.steps)
        folder.mkdir(parents=True, exist_ok=True)

    def train(self, probe: Probe) -> None:
        """Run to the last step, from the checkpoint of the folder where there is one."""
        self.resume()
        run, last = self.settings.run, self.settings.optim.steps
        losses: list[float] = []
        with tqdm(total=last, initial=self.step, unit="step", smoothing=0.05) as bar:
            while self.step < last:
                losses.append(self.train_step())
                bar.update()
                if self.step % run.log_every == 0 or self.step == last:
                    self.log(loss=sum(losses) / len(losses))
                    bar.set_postfix(loss=f"{losses[-1]:.4f}")
                    losses.clear()
                if self.step % run.probe_every == 0 or self.step == last:
                    self.log(**self.measure(probe))
                if self.step % run.checkpoint_every == 0 or self.step == last:
                    self.save()

    def train_step(self) -> float:
        """One optimiser step; returns the loss in nats per masked token."""
        seed = hash((self.settings.run.seed, self.step))
        torch.manual_seed(seed)
        self.model.train()
        batch, masked = self._masked_batch(Generator().manual_seed(seed))
        tokens, masked = batch.tokens.to(self.device), masked.to(self.device)
        where = masked.flatten().nonzero().squeeze(1)
        half = self.settings.run.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            noisy = tokens.masked_fill(masked, self.mask_id)
            logits = self.predict(noisy, batch.lengths, where).float()
        loss = self._loss(logits, tokens[masked], masked)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.optim.clip)
        set_rate(self.optimizers, schedule(self.step, self.settings.optim))
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.average.update(self.model)
        if self.puma is not None:
            self.puma.advance(logits.detach(), masked, self.step)
        self.step += 1
        return loss.item()

    def _masked_batch(self, generator: Generator) -> tuple[Batch, Tensor]:
        """The gold rows of this step and which of their cells are masked."""
        if self.puma is not None:
            return self.puma.rows()
        batch = self.source.batch(self.step)
        masked = random_mask(batch.maskable, generator)
        scheme = self.settings.masking
        if isinstance(scheme, RandomMasking):
            draw = torch.rand(len(masked), 1, generator=generator)
            if scheme.block_share > 0:
                blocks = block_mask(batch.maskable, scheme.block_lengths, generator)
                masked = torch.where(draw < scheme.block_share, blocks, masked)
            if scheme.chain_share > 0 and batch.computed is not None:
                chains = chain_mask(batch.maskable, batch.computed, scheme.block_lengths, generator)
                masked = torch.where(draw > 1 - scheme.chain_share, chains, masked)
        return batch, masked

    def _loss(self, logits: Tensor, gold: Tensor, masked: Tensor) -> Tensor:
        loss = F.cross_entropy(logits, gold, reduction="none")
        scheme = self.settings.masking
        if isinstance(scheme, PaplMasking):
            loss = loss * papl_weights(-loss, masked, scheme.alpha, scheme.tau)
        return mean_masked(loss, masked)

    def measure(self, probe: Probe) -> Mapping[str, float]:
        """The probe's numbers for the averaged weights."""
        averaged = LLaDA(self.settings.model).to(self.device).eval()
        averaged.load_state_dict(self.average.weights)
        return probe(averaged)

    def log(self, **numbers: float) -> None:
        """Append one line to the log that plots are drawn from."""
        with (self.folder / LOG).open("a") as file:
            file.write(json.dumps({"step": self.step, **numbers}) + "\n")

    def save(self) -> None:
        """Write the checkpoint so that a kill leaves the old one or the new one, never a part."""
        state: dict[str, Any] = {
            "settings": msgspec.json.encode(self.settings).decode(),
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "average": self.average.state_dict(),
            "puma": None if self.puma is None else self.puma.state_dict(),
        }
        target = self.folder / CHECKPOINT
        partial = target.with_suffix(".partial")
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)

    def resume(self) -> None:
        """Load the checkpoint, where there is one, and drop the log lines written after it.

        Raises ValueError where the checkpoint is of a run with other settings.
        """
        path = self.folder / CHECKPOINT
        if path.exists():
            state = torch.load(path, map_location=self.device, weights_only=True)
            if not _same_settings(state["settings"], self.settings):
                raise ValueError(
                    f"{path} was written with other settings: it has {state['settings']}, this run "
                    f"has {msgspec.json.encode(self.settings).decode()}; give the new run a folder "
                    "of its own"
                )
            self.step = state["step"]
            self.model.load_state_dict(state["model"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.average.load_state_dict(state["average"])
            if self.puma is not None:
                self.puma.load_state_dict(state["puma"])
        log = self.folder / LOG
        if log.exists():
            log.write_text("".join(_complete_until(log.read_text(), self.step)))


def start_model(settings: Settings) -> LLaDA:
    """The network as a run begins with it.

    Raises ValueError where ``start_from`` is a model of other sizes than the settings'.
    """
    if settings.run.start_from is None:
        return LLaDA(settings.model)
    model = read_model(Path(settings.run.start_from))
    read = msgspec.structs.replace(model.settings, dropout=settings.model.dropout)
    if read != settings.model:
        raise ValueError(
            f"start_from is {settings.run.start_from}, whose sizes are {model.settings}; the "
            f"settings have {settings.model}: give the same sizes in [model]"
        )
    fresh = LLaDA(settings.model)
    fresh.load_state_dict(model.state_dict())
    return fresh


def _same_settings(written: str, settings: Settings) -> bool:
    """Whether settings in JSON are these; a field that was not written has its default."""
    try:
        return msgspec.json.decode(written, type=Settings) == settings
    except msgspec.ValidationError:
        return False


def _complete_until(text: str, step: int) -> list[str]:
    """The whole lines of a log up to a step; a line cut short by a kill is the last one."""
    lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in lines if json.loads(line)["step"] <= step]
