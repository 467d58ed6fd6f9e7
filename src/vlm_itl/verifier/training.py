"""Teach a vision-language model to judge, by examples whose answers are known; transformers' Trainer has the loop."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy.special import expit
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vlm_itl.core.coco import Coco
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import read_json
from vlm_itl.core.pretrained import loading
from vlm_itl.core.redact import say
from vlm_itl.judges.vlm.transformers_backend import TransformersBackend
from vlm_itl.probes.metrics import auroc, brier, expected_calibration_error, fit_calibration
from vlm_itl.resume.progress import digest_of
from vlm_itl.resume.snapshots import NOTES, Snapshots, step_of
from vlm_itl.settings import Lora, Verifier, VlmJudge
from vlm_itl.verifier.batches import WORKER, Asking, Collating, Drawn, answer_loss, first_logits
from vlm_itl.verifier.examples import Example, Examples
from vlm_itl.verifier.held_back import check, together

HELD_OUT = {"mask": 600, "missing": 400}  # examples that the answers are measured on
POINTS = 50  # of the curve
WEIGHTS = "weights.safetensors"  # of a state


def train(
    fit: Coco, held_out: Coco, proposals: list[dict[str, Any]], images: Path, prompt: str, judge: VlmJudge, base: VlmJudge,
    settings: Verifier, iou: float, target: Path,
) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:  # fmt: skip
    """Fine-tune the base's model and save it, with its processor, to the folder `target`.

    One step is one batch; the learning rate grows for a tenth of the steps and falls by a cosine. The model is in evaluation mode: no
    dropout, running statistics as they are, so that what is trained is what will be asked. A killed training, started again, goes on.

    Several processes that `vlm_itl.verifier.launching`, or torchrun, started share each batch.

    Args:
        fit, held_out: labels to learn from and to measure on.
        proposals: of a detector that has seen none of the images they are on.
        prompt: with the sections `[mask]` and `[missing]`.
        judge: how the questions are drawn and answered; `base`: whose model it is.
        iou: the oracle's.

    Returns:
        Numbers of the trained and of the untrained model on the same examples of the held-out images, with the `seconds` that training
        and measuring took on so many `machines`, those before a kill included; and the curve of the loss. None in all processes but the
        first, which alone writes.

    Raises:
        UserError: the model cannot be loaded, trained or asked; it does not fit into memory; the loss is not finite.
    """
    asking = judge.model_copy(update={k: getattr(base, k) for k in ("model", "revision", "trust_remote_code")})
    if base.backend != "transformers":
        raise UserError(f"params.yaml: verifiers: a base to train is expected (backend: transformers); {settings.base} is behind a server")
    if judge.unit != "instance" or judge.answer != "probability":
        raise UserError("params.yaml: judges: a verifier needs unit: instance and answer: probability")
    backend = TransformersBackend(asking)
    processes = [os.environ.get(name) for name in ("WORLD_SIZE", "ACCELERATE_USE_FSDP")]  # whose states are no others'
    key = digest_of(
        ["verifier", settings.model_dump(), asking.model_dump(), backend.identity, prompt, iou, fit, proposals, torch.get_num_threads(),
         processes],
        [*sorted(Path(__file__).parent.glob("*.py")), *sorted({images / image["file_name"] for image in fit["images"]})],
    )  # fmt: skip
    snapshots = Snapshots(key)
    how = arguments(settings, snapshots.folder, backend.device)  # and each process has its GPU, before the model looks for one
    with loading(asking.model, "verifiers: base"):
        model = backend.model
    check(fit, held_out)
    learning, measuring = Examples(fit, proposals, iou), Examples(held_out, proposals, iou)
    question = Asking(together(fit, held_out), images, prompt, asking)
    examples = exam(measuring, settings.seed)
    options = backend.option_tokens(question(examples[0]))
    found = _agreed(snapshots.newest() if how.process_index == 0 else None)
    notes = read_json(found / NOTES) if found else {}
    begun = time.monotonic() - notes.get("seconds", 0.0)  # as if it had not been interrupted
    before = notes.get("before") or answers(backend, question, examples, options, "asking the untrained model")
    if settings.lora:
        model = with_adapters(model, settings.lora)
    teaching = Teaching(
        backend, options, Watching(snapshots, lambda: {"before": before, "seconds": time.monotonic() - begun}), model=model, args=how,
        train_dataset=Drawn(
            lambda number: learning.draw(settings.seed, number, settings.masks, settings.detector), settings.steps * settings.batch_size
        ),
        data_collator=Collating(question, backend),
    )  # fmt: skip
    if found and how.process_index == 0:
        say(f"going on at step {step_of(found)} of {settings.steps}, from {found}")
    try:
        teaching.train(resume_from_checkpoint=str(found) if found else None)
    except torch.OutOfMemoryError:
        raise UserError(
            f"verifiers: {asking.model} runs out of memory with {how.per_device_train_batch_size} examples at a time; "
            "raise accumulate, set lora, take dtype: bfloat16 or smaller pictures (render.longest)"
        ) from None
    trained = teaching.whole(settings.lora)
    if trained is None:
        return None
    backend.model = trained
    after = answers(backend, question, examples, options, "asking the trained model")
    trained.save_pretrained(target)
    backend.processor.save_pretrained(target)
    snapshots.clear()
    numbers = {**report(examples, before, after), "seconds": round(time.monotonic() - begun, 1), "machines": how.world_size}
    return numbers, curve_of(teaching.state.log_history, settings.steps)


def arguments(settings: Verifier, folder: Path, device: str) -> TrainingArguments:
    """How transformers' Trainer trains: as the settings say, with its files in a folder, without a word or a report of its own.

    Raises:
        UserError: a batch has no equal parts for the processes.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    size, rest = divmod(settings.batch_size, settings.accumulate * processes)
    if rest:
        raise UserError(
            f"params.yaml: verifiers: batch_size: {settings.batch_size} examples have no {settings.accumulate} x {processes} equal parts "
            "(accumulate x processes)"
        )
    made = TrainingArguments(
        output_dir=str(folder), max_steps=settings.steps, per_device_train_batch_size=size,
        gradient_accumulation_steps=settings.accumulate, learning_rate=settings.learning_rate, weight_decay=0.01, max_grad_norm=1.0,
        lr_scheduler_type="cosine", warmup_steps=settings.steps // 10, train_sampling_strategy="sequential", remove_unused_columns=False,
        **{f"dataloader_{name}": value for name, value in WORKER.items()}, dataloader_pin_memory=False, save_strategy="no",
        logging_strategy="steps", logging_steps=1, logging_nan_inf_filter=False, report_to="none", disable_tqdm=True, log_level="error",
        use_cpu=device == "cpu", seed=settings.seed % 2**32,
    )  # fmt: skip
    if made.n_gpu > 1:
        made._n_gpu = 1  # or it splits each batch itself, by a first dimension that tensors of pictures do not always have
    return made


class Teaching(Trainer):
    """transformers' Trainer with the loss of `answer_loss`, of a model in evaluation mode."""

    loss_is_scaled_for_ga = False  # it is a mean of a part

    def __init__(self, backend: TransformersBackend, options: tuple[list[int], list[int]], watching: Watching, **more: Any) -> None:
        config = more["model"].config
        kept = dict(vars(config))
        super().__init__(callbacks=[watching], **more)
        vars(config).clear()
        vars(config).update(kept)  # the Trainer has set use_cache in it, which would be saved with the model
        self.remove_callback(PrinterCallback)
        self.backend, self.options = backend, options

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
        model.eval()  # the Trainer has just set it to training
        right = inputs.pop("right")
        return answer_loss(first_logits(model, self.backend.placed(inputs)), right, *self.options)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Of a state: the weights that learn, by their names in memory.

        The Trainer's own file has the names of published weights. It does not find them again where a family's two sets of names differ,
        says nothing, and goes on from the untrained model (transformers 5.23). FSDP has files of its own.
        """
        if self.args.should_save and not self.is_fsdp_enabled:
            Path(str(output_dir)).mkdir(parents=True, exist_ok=True)
            save_file({name: p.detach().contiguous() for name, p in self._learning().items()}, Path(str(output_dir)) / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        stored, learning = load_file(Path(resume_from_checkpoint) / WEIGHTS), self._learning()
        assert stored.keys() == learning.keys()
        with torch.no_grad():
            for name, p in learning.items():
                p.copy_(stored[name])

    def _learning(self) -> dict[str, torch.nn.Parameter]:
        assert self.model is not None
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def _save_checkpoint(self, *arguments: Any) -> None:
        """Raises:
        UserError: it cannot be written, for example on a full disk; the state saved before is still there.
        """
        if self.is_fsdp_enabled:
            self._fill_moments()
        try:
            super()._save_checkpoint(*arguments)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, SafetensorError) as error:  # by which torch and safetensors say so
            said = " ".join(str(error).split())[:200]
            raise UserError(f"{self.args.output_dir}: the training's state cannot be saved ({said}); is the disk full?") from None

    def _fill_moments(self) -> None:
        """Give Adam's moments to weights that never had a gradient, as LLaVA's last layer of vision: FSDP's loading wants all of them."""
        assert self.optimizer is not None
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                if p not in self.optimizer.state:
                    step = torch.zeros((), dtype=torch.float32, device=p.device)
                    self.optimizer.state[p] = {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}

    def whole(self, lora: Lora | None) -> Any | None:
        """The trained model, all of it, without adapters; None in all processes but the first."""
        model = self.accelerator.unwrap_model(self.model)
        if self.is_fsdp_enabled:
            state = self.accelerator.get_state_dict(self.model_wrapped)
            if self.is_world_process_zero():
                model = TransformersBackend(self.backend.settings).model
                model = with_adapters(model, lora) if lora else model
                model.load_state_dict(state)
        if self.args.world_size > 1:
            self.accelerator.end_training()
        if not self.is_world_process_zero():
            return None
        return model.merge_and_unload() if lora else model


class Watching(TrainerCallback):
    """Shows how far a training is, ends one whose loss is not finite, and keeps its states."""

    def __init__(self, snapshots: Snapshots, notes: Callable[[], dict[str, Any]]) -> None:
        self.snapshots, self.notes = snapshots, notes
        self.bar = tqdm(disable=True)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc="training the verifier", unit="step", mininterval=2,
            disable=not state.is_world_process_zero,
        )  # fmt: skip

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar.update()
        control.should_save = state.global_step < state.max_steps and _agreed(self.snapshots.due())

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Raises: UserError, if the loss is not finite."""
        loss = more["logs"].get("loss")
        if loss is None:  # the last word, about all of it
            return
        if not math.isfinite(loss):
            raise UserError(f"verifiers: the loss is not finite at step {state.global_step}; lower its learning_rate")
        self.bar.set_postfix({"loss": f"{loss:.3f}"}, refresh=False)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        _agreed(None)  # all processes have written theirs
        if state.is_world_process_zero:
            self.snapshots.seal(self.snapshots.folder / f"checkpoint-{state.global_step}", self.notes())

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar.close()


def curve_of(history: list[dict[str, Any]], steps: int) -> list[dict[str, Any]]:
    """The mean loss since the row before, at about `POINTS` steps and the last one, from a loss for each step."""
    rows: list[dict[str, Any]] = []
    since: list[float] = []
    for row in history:
        if "loss" in row:
            since.append(row["loss"])
            if row["step"] % max(1, steps // POINTS) == 0 or row["step"] == steps:
                rows.append({"step": row["step"], "loss": round(sum(since) / len(since), 6)})
                since = []
    return rows


def with_adapters(model: Any, settings: Lora) -> Any:
    """The model with low-rank adapters beside all its linear layers but the output, the only weights that train; peft."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear"))


def exam(examples: Examples, seed: int) -> list[Example]:
    """The examples that a verifier is measured on: half of them right, of the masks half the detector's where it has such."""
    result = []
    for kind, n in HELD_OUT.items():
        for k in range(n):
            dice, right = random.Random(f"exam/{seed}/{kind}/{k}"), k % 2 == 0
            result.append(examples.mask(dice, right, 0.5) if kind == "mask" else examples.missing(dice, right))
    return result


def answers(
    backend: TransformersBackend, question: Asking, examples: list[Example], options: tuple[list[int], list[int]], desc: str
) -> list[float]:
    """Log-odds of each example, by the judge's own way of asking: batches are halved where the memory runs out."""
    found: dict[int, float] = {}
    with tqdm(total=len(examples), desc=desc, unit="question") as bar:
        for number, answer in backend.ask((k, question(example)) for k, example in enumerate(examples)):
            found[number] = answer.log_odds or 0.0
            bar.update()
    return [found[k] for k in range(len(examples))]


def report(examples: list[Example], before: list[float], after: list[float]) -> dict[str, Any]:
    """Numbers by kind of question: AUROC, accuracy, Brier score, calibration; of the untrained model and the rules beside it.

    Args:
        before, after: log-odds of approval.
    """
    numbers: dict[str, Any] = {}
    for kind in HELD_OUT:
        of = [k for k, e in enumerate(examples) if e.kind == kind]
        right = np.array([examples[k].right for k in of])
        x, untrained = np.array([after[k] for k in of]), np.array([before[k] for k in of])
        p, fitted = expit(x), fit_calibration(x, right)
        numbers[kind] = {
            "examples": len(of), "auroc": auroc(x, right), "untrained_auroc": auroc(untrained, right),
            "accuracy": _round(np.mean((x >= 0) == right)), "untrained_accuracy": _round(np.mean((untrained >= 0) == right)),
            "always_accuracy": _round(np.mean(right)), "brier": brier(p, right), "ece": expected_calibration_error(p, right),
            "temperature": _round(1 / fitted.scale) if fitted.scale else None,
            "calibrated_ece": expected_calibration_error(expit(fitted(x)), right),
            "auroc_by_change": {
                change: auroc(*_against_right(x, right, [examples[k].change for k in of], change))
                for change in sorted({examples[k].change for k in of if not examples[k].right})
            },
        }  # fmt: skip
    own = [k for k, e in enumerate(examples) if e.change == "detector"]
    right = np.array([examples[k].right for k in own], dtype=bool)
    numbers["detector"] = {
        "examples": len(own), "auroc": auroc(np.array([after[k] for k in own]), right),
        "untrained_auroc": auroc(np.array([before[k] for k in own]), right),
        "score_auroc": auroc(np.array([examples[k].rows[0]["score"] for k in own]), right),
    }  # fmt: skip
    return numbers


def _against_right(x: np.ndarray, right: np.ndarray, changes: list[str], change: str) -> tuple[np.ndarray, np.ndarray]:
    """The wrong ones of a kind against all right ones, or, for the detector's, all of both that are its own."""
    mine = np.array([c == change for c in changes])
    chosen = mine if change == "detector" else mine & ~right | right
    return x[chosen], right[chosen]


def _agreed(value: Any) -> Any:
    """The first process's, in all of them, which wait for each other here."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


def _round(x: Any) -> float:
    return round(float(x), 4)
