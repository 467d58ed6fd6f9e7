"""Teach a vision-language model to judge, by examples whose answers are known."""

from __future__ import annotations

import math
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from tqdm import tqdm

from vlm_itl.core.coco import Coco
from vlm_itl.core.errors import UserError
from vlm_itl.core.pretrained import loading
from vlm_itl.core.redact import say
from vlm_itl.judges.vlm.transformers_backend import TransformersBackend
from vlm_itl.probes.metrics import auroc, brier, expected_calibration_error, fit_calibration
from vlm_itl.resume.checkpoint import Checkpoint
from vlm_itl.resume.progress import digest_of
from vlm_itl.settings import Lora, Verifier, VlmJudge
from vlm_itl.verifier.batches import Asking, Batch, Batches, answer_loss, first_logits, loader
from vlm_itl.verifier.examples import Example, Examples
from vlm_itl.verifier.held_back import check, together

HELD_OUT = {"mask": 600, "missing": 400}  # examples that the answers are measured on
POINTS = 50  # of the curve


def train(
    fit: Coco, held_out: Coco, proposals: list[dict[str, Any]], images: Path, prompt: str, judge: VlmJudge, base: VlmJudge,
    settings: Verifier, iou: float, target: Path,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:  # fmt: skip
    """Fine-tune the base's model and save it, with its processor, to the folder `target`.

    One step is one batch; the learning rate grows for a tenth of the steps and falls by a cosine. The model is in evaluation mode: no
    dropout, running statistics as they are, so that what is trained is what will be asked. A killed training, started again, goes on.

    Args:
        fit, held_out: labels to learn from and to measure on.
        proposals: of a detector that has seen none of the images they are on.
        prompt: with the sections `[mask]` and `[missing]`.
        judge: how the questions are drawn and answered; `base`: whose model it is.
        iou: the oracle's.

    Returns:
        Numbers of the trained and of the untrained model on the same examples of the held-out images, with the `seconds` that training
        and measuring took on so many `machines`, those before a kill included; and the curve of the loss.

    Raises:
        UserError: the model cannot be loaded, trained or asked; it does not fit into memory; the loss is not finite.
    """
    asking = judge.model_copy(update={k: getattr(base, k) for k in ("model", "revision", "trust_remote_code")})
    if base.backend != "transformers":
        raise UserError(f"params.yaml: verifiers: a base to train is expected (backend: transformers); {settings.base} is behind a server")
    if judge.unit != "instance" or judge.answer != "probability":
        raise UserError("params.yaml: judges: a verifier needs unit: instance and answer: probability")
    backend = TransformersBackend(asking)
    with loading(asking.model, "verifiers: base"):
        model = backend.model
    check(fit, held_out)
    learning, measuring = Examples(fit, proposals, iou), Examples(held_out, proposals, iou)
    question = Asking(together(fit, held_out), images, prompt, asking)
    examples = exam(measuring, settings.seed)
    options = backend.option_tokens(question(examples[0]))
    key = digest_of(
        ["verifier", settings.model_dump(), asking.model_dump(), backend.identity, prompt, iou, fit, proposals, torch.get_num_threads()],
        [*sorted(Path(__file__).parent.glob("*.py")), *sorted({images / image["file_name"] for image in fit["images"]})],
    )
    checkpoint = Checkpoint(key)
    found = checkpoint.load()
    begun = time.monotonic() - (found["seconds"] if found else 0.0)  # as if it had not been interrupted
    before = found["before"] if found else answers(backend, question, examples, options, "asking the untrained model")
    if settings.lora:
        model = with_adapters(model, settings.lora)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.01, fused=True)
    curve: list[dict[str, Any]] = []
    step, losses = 0, [0.0, 0.0]  # sum and number since the curve's last row
    if found:
        model.load_state_dict(found["model"])
        optimizer.load_state_dict(found["optimizer"])
        step, curve, losses = found["step"], found["curve"], found["losses"]
        say(f"going on at step {step} of {settings.steps}, from {checkpoint.path}")

    def draw(number: int) -> Example:
        return learning.draw(settings.seed, number, settings.masks, settings.detector)

    model.eval()
    batches = Batches(draw, question, backend, settings.batch_size // settings.accumulate, step * settings.accumulate,
                      settings.steps * settings.accumulate)  # fmt: skip
    source = iter(loader(batches))
    with tqdm(total=settings.steps, initial=step, desc="training the verifier", unit="step", mininterval=2) as bar:
        while step < settings.steps:
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * rate(step, settings.steps)
            loss = 0.0
            try:
                for _ in range(settings.accumulate):
                    loss += _backward(model, backend, next(source), options, settings.accumulate)
            except torch.OutOfMemoryError:
                raise UserError(
                    f"verifiers: {asking.model} runs out of memory with {settings.batch_size // settings.accumulate} examples at a time; "
                    "raise accumulate, set lora, take dtype: bfloat16 or smaller pictures (render.longest)"
                ) from None
            if not math.isfinite(loss):
                raise UserError(f"verifiers: the loss is not finite at step {step + 1}; lower its learning_rate")
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            losses = [losses[0] + loss, losses[1] + 1]
            if step % max(1, settings.steps // POINTS) == 0 or step == settings.steps:
                curve.append({"step": step, "loss": round(losses[0] / losses[1], 6)})
                losses = [0.0, 0.0]
            bar.update()
            bar.set_postfix({"loss": f"{loss:.3f}"}, refresh=False)
            if checkpoint.due() and step < settings.steps:
                checkpoint.save({
                    "model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "curve": curve, "losses": losses,
                    "before": before, "seconds": time.monotonic() - begun,
                })  # fmt: skip
    if settings.lora:
        model = model.merge_and_unload()
    backend.model = model
    after = answers(backend, question, examples, options, "asking the trained model")
    model.save_pretrained(target)
    backend.processor.save_pretrained(target)
    checkpoint.clear()
    return {**report(examples, before, after), "seconds": round(time.monotonic() - begun, 1), "machines": 1}, curve


def rate(step: int, steps: int) -> float:
    """Factor of the learning rate at a step: linear warm-up over a tenth of the steps, then a cosine to nearly 0."""
    warmup = max(1, steps // 10)
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))


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


def _backward(model: Any, backend: TransformersBackend, batch: Batch, options: tuple[list[int], list[int]], parts: int) -> float:
    loss = answer_loss(first_logits(model, backend.placed(batch.inputs)), batch.right.to(backend.device), *options) / parts
    loss.backward()
    return float(loss.detach())


def _round(x: Any) -> float:
    return round(float(x), 4)
