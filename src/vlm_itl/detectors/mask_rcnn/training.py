"""Training Mask R-CNN on COCO labels.

A plain loop on the model of Detectron2's tools/plain_train_net.py. Everything at step k follows from the seed and k, and the loop saves its
state now and then, so that a training that was killed ends with the weights of one that was not. Several processes (see `processes`) run
it in step, each on its part of every batch; DistributedDataParallel takes the mean of their gradients, and the first of them writes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.engine import create_ddp_model
from detectron2.layers.batch_norm import NaiveSyncBatchNorm
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from detectron2.solver.build import get_default_optimizer_params
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from tqdm import tqdm

from vlm_itl.core.coco import Coco
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import replacing
from vlm_itl.core.redact import say
from vlm_itl.detectors import NO_STOPPING, Trained
from vlm_itl.detectors.labels import believed, check
from vlm_itl.detectors.mask_rcnn.batches import Sample, batches, to_records
from vlm_itl.detectors.mask_rcnn.checkpoint import key_of
from vlm_itl.detectors.mask_rcnn.config import build_config, make_deterministic
from vlm_itl.detectors.mask_rcnn.losses import Losses
from vlm_itl.detectors.mask_rcnn.prediction import predict
from vlm_itl.detectors.mask_rcnn.processes import mean, of_first
from vlm_itl.detectors.mask_rcnn.schedule import optimiser_steps
from vlm_itl.detectors.mask_rcnn.speed import faster
from vlm_itl.detectors.mask_rcnn.weights import initial_weights, load_weights
from vlm_itl.metrics.detection import average_precision
from vlm_itl.resume.checkpoint import Checkpoint, save_torch

if TYPE_CHECKING:
    from vlm_itl.settings import Detector, EarlyStopping, ModelLabels, Training

POINTS = 100  # of the curve, at most


def train(
    labels: Coco, images: Path, model_folder: Path, detector: Detector, training: Training, seed: int, previous: Path | None = None,
    validation: Coco | None = None,
) -> Trained:  # fmt: skip
    """Train and write `model_folder/model.pth` (a Detectron2 checkpoint) and `config.yaml`; `launch` it to share it.

    Args:
        labels: COCO instances; may hold images without annotations (they teach background).
        images: the folder of the images.
        previous: a model folder to continue from; None starts from `detector.init`.
        validation: COCO instances that early stopping looks at.

    Raises:
        UserError: no labels, no validation instances for early stopping, unusable weights, a batch that the processes cannot share
            equally, batch normalisation that they cannot share, or a loss that is not finite.
        OSError: a checkpoint or the model cannot be written.
    """
    learned = believed(labels, training.model_labels)
    check(learned)
    stopping = training.early_stopping
    if stopping and (validation is None or not any(not a["iscrowd"] for a in validation["annotations"])):
        raise UserError("early_stopping needs validation images with instances; set split.validation_fraction higher")
    make_deterministic(seed)
    cfg = build_config(detector, len(labels["categories"]))
    processes, first = comm.get_world_size(), comm.is_main_process()
    if cfg.SOLVER.IMS_PER_BATCH % processes:
        raise UserError(f"{processes} processes (detector.processes) cannot share SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} equally")
    records = to_records(learned, images)
    steps = optimiser_steps(training, len(records), cfg.SOLVER.IMS_PER_BATCH)
    scale_schedule(cfg, steps, training.learning_rate)
    torch.manual_seed(seed)
    model = build_model(cfg)
    if processes > 1:
        check_norms(model, cfg.MODEL.DEVICE, training.model_labels)
    source = str(previous / "model.pth") if previous else initial_weights(detector, cfg)
    pictures = sorted({images / i["file_name"] for data in (learned, validation) if data for i in data["images"]})
    key = key_of(
        [cfg.dump(), training.model_dump(), seed, learned, validation if stopping else None], [Path(source) if source else None, *pictures]
    )
    load_weights(model, source)
    faster(model, training=True)
    state = State(cfg, model, steps, Checkpoint(key))
    # In a single process nothing is wrapped. No search for unused parameters: without a foreground Detectron2's losses are 0 and give each
    # parameter a gradient of 0.
    losses = create_ddp_model(Losses(model, training.model_labels, seed), device_ids=None, broadcast_buffers=False)
    if state.step and first:
        say(f"going on at step {state.step} of {steps}, from {state.checkpoint.path}")
    stop = Stopping(stopping, cfg.SOLVER.WARMUP_ITERS, state) if stopping else None

    def evaluate() -> float:
        assert validation is not None
        if processes > 1:
            for buffer in model.buffers():  # each has running statistics of its own; the first's are saved
                dist.broadcast(buffer, 0)
        rows = predict(model, cfg, {**validation, "annotations": []}, images, 0.05, 8, "validating")
        model.train()
        return float(of_first(lambda: average_precision(validation, rows)["mask"]["AP"] or 0.0))

    model.train()
    with (
        EventStorage(),
        tqdm(
            total=steps, initial=state.step, desc=f"training on {len(records)} images", unit="step", mininterval=2, disable=not first
        ) as bar,
    ):
        if stop and previous and state.step == 0:
            stop.look(evaluate())
        for inputs in batches(records, cfg, seed, state.step, steps):
            if stop and stop.over:
                break
            loss = optimise(state, losses, inputs)
            bar.update()
            best = {"best_AP": f"{stop.kept['best_AP']:.3f}"} if stop and stop.kept["evaluations"] else {}
            bar.set_postfix({"loss": f"{loss:.3f}", "lr": f"{state.rate():.1e}", **best}, refresh=False)
            if stop and (state.step % stop.settings.every == 0 or state.step == steps):
                stop.look(evaluate())
            if first and state.checkpoint.due() and state.step < steps:
                state.save()
    if stop:
        model.load_state_dict(stop.weights)
    if first:
        save(model, cfg, model_folder)
        state.checkpoint.clear()
    numbers = {"images": len(records), "steps": state.step, "planned": steps, **(stop.numbers() if stop else NO_STOPPING)}
    return Trained(numbers, state.curve)


def scale_schedule(cfg: CfgNode, steps: int, learning_rate: float | None) -> None:
    """Fit SOLVER to a training of so many steps.

    Warm-up is WARMUP_ITERS, or a fifth of the steps where that is less; the milestones of WarmupMultiStepLR keep their share of MAX_ITER.
    """
    cfg.SOLVER.STEPS = tuple(sorted({min(steps, max(1, round(m * steps / cfg.SOLVER.MAX_ITER))) for m in cfg.SOLVER.STEPS} - {steps}))
    cfg.SOLVER.MAX_ITER = steps
    cfg.SOLVER.WARMUP_ITERS = min(cfg.SOLVER.WARMUP_ITERS, steps // 5)
    if learning_rate is not None:
        cfg.SOLVER.BASE_LR = learning_rate


class State:
    """All of a training that changes from step to step, as it starts or as the checkpoint has it."""

    def __init__(self, cfg: CfgNode, model: torch.nn.Module, steps: int, checkpoint: Checkpoint) -> None:
        self.model, self.steps, self.checkpoint = model, steps, checkpoint
        self.precision = torch.autocast(cfg.MODEL.DEVICE, torch.bfloat16, enabled=cfg.SOLVER.AMP.ENABLED)  # of the forward pass
        self.clip = clipper(cfg)
        self.optimizer = build_optimizer(cfg, model)
        self.scheduler = build_lr_scheduler(cfg, self.optimizer)
        self.step = 0  # steps taken
        self.curve: list[dict[str, Any]] = []
        self.losses: list[float] = []  # since the curve's last row
        self.stopping: dict[str, Any] | None = None
        found = of_first(checkpoint.load)
        if found is not None:
            for name in ("model", "optimizer", "scheduler"):
                getattr(self, name).load_state_dict(found[name])
            self.step, self.curve, self.losses, self.stopping = (found[k] for k in ("step", "curve", "losses", "stopping"))

    def save(self) -> None:
        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "scheduler")}
        self.checkpoint.save(parts | {k: getattr(self, k) for k in ("step", "curve", "losses", "stopping")})

    def rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def row(self) -> None:
        """Close a row of the curve."""
        mean = sum(self.losses) / len(self.losses) if self.losses else None
        self.curve.append({"step": self.step, "loss": mean and round(mean, 6), "learning_rate": self.rate(), "mask_AP": None})
        self.losses = []


def check_norms(model: torch.nn.Module, device: str, labels: ModelLabels) -> None:
    """Refuse batch normalisation over several processes (MODEL.*.NORM) where it cannot be had.

    Raises:
        UserError: torch's needs GPUs; and where `labels.weight` parts a batch, a process may have no image that the others wait for.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.SyncBatchNorm) and device == "cpu":
            raise UserError("detector.config: MODEL.*.NORM: SyncBN needs GPUs; for several processes on a CPU take naiveSyncBN, GN or BN")
        if isinstance(module, (torch.nn.SyncBatchNorm, NaiveSyncBatchNorm)) and labels.weight != 1:
            raise UserError("model_labels.weight: in several processes it must be 1 with MODEL.*.NORM: SyncBN; or take GN or BN there")


def optimise(state: State, losses_of: Callable[[list[Sample]], dict[str, torch.Tensor]], inputs: list[Sample]) -> float:
    """One step; the loss before it, the mean over the processes.

    Raises:
        UserError: this process's loss is not finite. The weights are those before the step.
    """
    try:
        with state.precision:
            losses = losses_of(inputs)
    except FloatingPointError:  # Detectron2 looks at its region proposals
        losses = {"loss": torch.tensor(torch.nan)}
    own = torch.stack(list(losses.values()))
    whole = own.detach().sum()
    if not math.isfinite(whole.item()):  # the one time a step that a GPU is waited for here; other processes wait, and end with this one
        parts = ", ".join(f"{name} {value:.3g}" for name, value in zip(losses, own.tolist()))
        raise UserError(
            f"the loss is not finite at step {state.step + 1} of {state.steps} ({parts}); lower train.learning_rate or "
            "pretrain.learning_rate"
        )
    loss = mean(whole).item()
    state.optimizer.zero_grad()
    own.sum().backward()
    state.clip([p for p in state.model.parameters() if p.grad is not None])
    state.optimizer.step()
    state.scheduler.step()
    state.step += 1
    state.losses.append(loss)
    if state.step % max(1, state.steps // POINTS) == 0 or state.step == state.steps:
        state.row()
    return loss


class Stopping:
    """Early stopping: the weights of the highest AP so far, and whether it is time to end."""

    def __init__(self, settings: EarlyStopping, warmup: int, state: State) -> None:
        self.settings, self.warmup, self.state = settings, warmup, state
        self.kept = state.stopping or {
            "evaluations": 0, "best_AP": None, "best_step": None, "weights": None, "reference": None, "without_gain": 0,
        }  # fmt: skip
        state.stopping = self.kept

    def look(self, ap: float) -> None:
        """Take note of the AP at the present step."""
        k, step = self.kept, self.state.step
        k["evaluations"] += 1
        if k["best_AP"] is None or ap > k["best_AP"]:
            k |= {"best_AP": ap, "best_step": step, "weights": {n: v.detach().clone() for n, v in self.state.model.state_dict().items()}}
        if k["reference"] is None or ap > k["reference"] + self.settings.min_gain:
            k |= {"reference": ap, "without_gain": 0}
        elif step >= self.warmup:
            k["without_gain"] += 1
        if not self.state.curve or self.state.curve[-1]["step"] != step:
            self.state.row()
        self.state.curve[-1]["mask_AP"] = ap

    @property
    def over(self) -> bool:
        return bool(self.kept["without_gain"] >= self.settings.patience)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return self.kept["weights"]  # type: ignore[no-any-return]

    def numbers(self) -> dict[str, Any]:
        return {"evaluations": self.kept["evaluations"], "best_step": self.kept["best_step"], "validation_mask_AP": self.kept["best_AP"]}


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
    """SOLVER.OPTIMIZER with the learning rate and weight decay of SOLVER, as Detectron2 builds it, but fused: all parameters in one pass.

    Raises:
        UserError: the optimiser is neither SGD nor ADAMW.
    """
    s = cfg.SOLVER
    common = {"weight_decay_norm": s.WEIGHT_DECAY_NORM, "weight_decay_bias": s.WEIGHT_DECAY_BIAS}
    if s.OPTIMIZER == "SGD":
        parameters = get_default_optimizer_params(model, base_lr=s.BASE_LR, bias_lr_factor=s.BIAS_LR_FACTOR, **common)
        return torch.optim.SGD(
            parameters, lr=s.BASE_LR, momentum=s.MOMENTUM, nesterov=s.NESTEROV, weight_decay=s.WEIGHT_DECAY, fused=True
        )  # fmt: skip
    if s.OPTIMIZER != "ADAMW":
        raise UserError(f"SOLVER.OPTIMIZER: SGD or ADAMW is expected, not {s.OPTIMIZER!r}")
    return torch.optim.AdamW(get_default_optimizer_params(model, **common), lr=s.BASE_LR, weight_decay=s.WEIGHT_DECAY, fused=True)


def clipper(cfg: CfgNode) -> Callable[[list[torch.nn.Parameter]], None]:
    """SOLVER.CLIP_GRADIENTS: by value, or each parameter's gradient by its own norm, as Detectron2 does, in one call for all of them."""
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if not clip.ENABLED:
        return lambda parameters: None
    if clip.CLIP_TYPE == "value":
        return lambda parameters: torch.nn.utils.clip_grad_value_(parameters, clip.CLIP_VALUE)

    def by_norm(parameters: list[torch.nn.Parameter]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        norms = torch.stack(torch._foreach_norm(gradients, clip.NORM_TYPE))
        # the 1e-6 of torch.nn.utils.clip_grad_norm_
        torch._foreach_mul_(gradients, list((clip.CLIP_VALUE / (norms + 1e-6)).clamp(max=1.0)))

    return by_norm


def save(model: torch.nn.Module, cfg: CfgNode, folder: Path) -> None:
    """Write weights and config; no paths of this machine, no device, so that equal trainings give equal bytes."""
    clean = cfg.clone()
    clean.MODEL.WEIGHTS, clean.OUTPUT_DIR, clean.MODEL.DEVICE = "", "", "cpu"
    save_torch({"model": model.state_dict()}, folder / "model.pth")
    with replacing(folder / "config.yaml") as temporary:
        temporary.write_text(clean.dump())
