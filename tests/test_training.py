"""Schedules, early stopping, model labels believed less, and trainings and predictions that are really killed."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, hearing_ctrl_c, rectangle
from PIL import Image
from tiny_detector import detector, pictures, predicted, steps

from vlm_itl.core.coco import decode
from vlm_itl.core.code import used_by
from vlm_itl.core.errors import UserError
from vlm_itl.detectors.mask_rcnn.schedule import optimiser_steps
from vlm_itl.settings import EarlyStopping, ModelLabels, Training

torch = pytest.importorskip("torch")
from detectron2.layers.mask_ops import paste_masks_in_image  # noqa: E402  (before `faster` replaces it)
from detectron2.modeling import build_model  # noqa: E402
from detectron2.utils.events import EventStorage  # noqa: E402

from vlm_itl.detectors.labels import believed  # noqa: E402
from vlm_itl.detectors.mask_rcnn import prediction, training  # noqa: E402
from vlm_itl.detectors.mask_rcnn.batches import Samples, batches, order, to_records  # noqa: E402
from vlm_itl.detectors.mask_rcnn.config import build_config, make_deterministic  # noqa: E402
from vlm_itl.detectors.mask_rcnn.losses import Losses  # noqa: E402
from vlm_itl.detectors.mask_rcnn.speed import nms_by_level, paste  # noqa: E402
from vlm_itl.resume import checkpoint, progress  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("images"))


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("VLM_ITL_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


# schedules


def test_steps_by_hand():
    assert optimiser_steps(Training(epochs=30), 11, 2) == 165
    assert optimiser_steps(Training(epochs=0.01), 1, 8) == 1
    assert [optimiser_steps(steps(300), n, 8) for n in (1, 72, 5000)] == [300] * 3
    adaptive = Training(schedule="adaptive", steps=240, images=72)
    assert [optimiser_steps(adaptive, n, 8) for n in (72, 4 * 72, 18, 360)] == [240, 480, 120, 537]  # times the root of n / 72
    linear = Training(schedule="adaptive", steps=90, images=20, growth=1)
    assert [optimiser_steps(linear, n, 2) for n in (20, 40, 10)] == [optimiser_steps(Training(epochs=9), n, 2) for n in (20, 40, 10)]


def test_warm_up_and_decay_scale_with_the_steps():
    cfg = build_config(detector(options={"SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR", "SOLVER.STEPS": [600, 800],
                                         "SOLVER.MAX_ITER": 1000, "SOLVER.WARMUP_ITERS": 50}), 2)  # fmt: skip
    training.scale_schedule(cfg, 100, 0.01)
    assert (cfg.SOLVER.STEPS, cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.BASE_LR) == ((60, 80), 100, 20, 0.01)
    training.scale_schedule(cfg, 1, None)  # milestones that fall together are one, none after the end
    assert (cfg.SOLVER.STEPS, cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS) == ((), 1, 0)


def test_learning_rate_rises_and_ends_near_nothing(data, tmp_path):
    numbers, curve = training.train(*data, tmp_path / "model", detector(), steps(40), 1)
    rates = [row["learning_rate"] for row in curve]
    assert numbers == {"images": 11, "steps": 40, "planned": 40, "evaluations": 0, "best_step": None, "validation_mask_AP": None}
    assert [row["step"] for row in curve] == list(range(1, 41))
    assert rates.index(max(rates)) in (7, 8)  # a fifth of the steps
    assert rates[0] < max(rates) / 3
    assert rates[-1] < max(rates) / 50
    assert sum(r["loss"] for r in curve[-5:]) < sum(r["loss"] for r in curve[:5])


# batches


def test_order_visits_every_image_once_an_epoch():
    landscape = [k % 3 > 0 for k in range(10)]
    drawn = [at for batch in islice(order(landscape, 2, 7, grouped=False), 10) for at in batch]
    assert [place for place, _ in drawn] == list(range(20))
    assert {Counter(i for _, i in drawn[k : k + 10]).most_common(1)[0][1] for k in (0, 10)} == {1}
    assert [i for _, i in drawn[:10]] != [i for _, i in drawn[10:]]
    for batch in islice(order(landscape, 2, 7, grouped=True), 30):
        assert len({landscape[i] for _, i in batch}) == 1


def test_a_batch_does_not_depend_on_who_loads_it_or_on_earlier_ones(data):
    cfg = build_config(detector(options={"INPUT.MIN_SIZE_TRAIN": [48, 56, 64]}), 2)
    records = to_records(*data)

    def pixels(cfg, first: int, last: int) -> list:
        return [[(x["image_id"], x["image"].numpy().tobytes(), len(x["instances"])) for x in batch]
                for batch in batches(records, cfg, 3, first, last)]  # fmt: skip

    expected = pixels(cfg, 0, 12)
    assert pixels(cfg, 7, 12) == expected[7:]
    workers = cfg.clone()
    workers.DATALOADER.NUM_WORKERS = 2
    assert pixels(workers, 0, 12) == expected
    assert len({x[1] for batch in expected for x in batch}) > 11  # sizes and flips differ from epoch to epoch


def test_samples_kept_are_samples_made_anew(data, monkeypatch):
    cfg = build_config(detector(), 2)
    records = to_records(*data)
    keeping = Samples(records, cfg, 1)
    monkeypatch.setattr("vlm_itl.detectors.mask_rcnn.batches.KEPT_BYTES", 0)
    not_keeping = Samples(records, cfg, 1)
    for place in range(60):
        a, b = keeping[place, place % 11], not_keeping[place, place % 11]
        assert torch.equal(a["image"], b["image"])
        if len(a["instances"]):  # Detectron2 gives no masks where there are none
            assert torch.equal(a["instances"].gt_masks.tensor, b["instances"].gt_masks.tensor)
        assert torch.equal(a["instances"].gt_boxes.tensor, b["instances"].gt_boxes.tensor)
    assert 11 < len(keeping.kept) <= 22  # one size, flipped or not
    assert not not_keeping.kept


# what is faster is the same


def test_nms_by_level_is_batched_nms():
    from detectron2.layers import batched_nms

    torch.manual_seed(0)
    for n in (0, 1, 300):
        xy = torch.rand(n, 2) * 100
        boxes, scores, levels = torch.cat([xy, xy + torch.rand(n, 2) * 60 + 1], 1), torch.rand(n), torch.randint(0, 5, (n,))
        assert torch.equal(nms_by_level(boxes, scores, levels, 0.6), batched_nms(boxes, scores, levels, 0.6))


def test_pasted_masks_are_detectron2s():
    assert paste_masks_in_image is not paste
    torch.manual_seed(0)
    for n in (0, 1, 200):
        corners = torch.rand(n, 2, 2) * torch.tensor([70.0, 50.0]) - 5
        boxes = torch.cat([corners.amin(1), corners.amax(1)], 1).clamp(min=0)
        boxes = torch.minimum(boxes, torch.tensor([60.0, 40.0, 60.0, 40.0]))  # some touch the image's edges
        masks = torch.rand(n, 28, 28)
        ours, theirs = paste(masks, boxes, (40, 60)), paste_masks_in_image(masks, boxes, (40, 60))
        assert ours.shape == theirs.shape
        assert torch.equal(ours, theirs.bool())
    assert 0 < ours.float().mean() < 0.5


@pytest.mark.parametrize(
    "options",
    [
        {"SOLVER.OPTIMIZER": "ADAMW"}, {"SOLVER.OPTIMIZER": "SGD"}, {"SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "value"},
        {"SOLVER.CLIP_GRADIENTS.ENABLED": False},
    ],
)  # fmt: skip
def test_optimiser_and_clipping_are_detectron2s(options):
    from detectron2.solver import build_optimizer
    from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping

    cfg = build_config(detector(options={"SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 0.5, "SOLVER.BIAS_LR_FACTOR": 2.0, **options}), 2)
    torch.manual_seed(0)
    models = [torch.nn.Sequential(torch.nn.Linear(5, 4, bias=False), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    if cfg.SOLVER.OPTIMIZER == "SGD":
        theirs = build_optimizer(cfg, models[1])
    else:
        parameters = get_default_optimizer_params(
            models[1], weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM, weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS
        )
        theirs = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)(
            parameters, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY
        )
    ours, clip = training.build_optimizer(cfg, models[0]), training.clipper(cfg)
    for _ in range(5):
        x = torch.randn(8, 5) * 10
        for model, optimizer in zip(models, (ours, theirs)):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            if optimizer is ours:
                clip(list(model.parameters()))
            optimizer.step()
    for a, b in zip(models[0].parameters(), models[1].parameters()):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)


# early stopping


class Scripted:
    """A training whose weights are its step."""

    def __init__(self) -> None:
        self.model = torch.nn.Linear(1, 1, bias=False)
        self.step, self.stopping, self.curve = 0, None, []

    def row(self) -> None:
        self.curve.append({"step": self.step, "mask_AP": None})


def test_stopping_by_hand():
    state = Scripted()
    stop = training.Stopping(EarlyStopping(every=10, patience=2, min_gain=0.01), warmup=15, state=state)
    seen = []
    for state.step, ap in ((0, 0.2), (10, 0.1), (20, 0.205), (30, 0.215), (40, 0.22), (50, 0.1)):
        torch.nn.init.constant_(state.model.weight, state.step)
        stop.look(ap)
        seen.append(stop.over)
    # 10 lies in the warm-up; .205 is no gain of .01, .215 is over .2; .22 is none over .215, but the best; .1 is the second without
    assert seen == [False, False, False, False, False, True]
    assert stop.numbers() == {"evaluations": 6, "best_step": 40, "validation_mask_AP": 0.22}
    assert stop.weights["weight"].item() == 40
    assert [row["mask_AP"] for row in state.curve] == [0.2, 0.1, 0.205, 0.215, 0.22, 0.1]


def test_stops_early_and_keeps_the_best_weights(data, tmp_path):
    """A learning rate of next to nothing gains nothing, so patience ends it, and the first weights are as good as any."""
    training.train(*data, tmp_path / "start", detector(), steps(30), 1)
    stopping = EarlyStopping(every=2, patience=2)
    s = Training(schedule="fixed_steps", steps=400, learning_rate=1e-12, early_stopping=stopping)
    numbers, curve = training.train(*data, tmp_path / "model", detector(), s, 1, tmp_path / "start", data[0])
    # warm-up is 50 of 400 steps; evaluated before the first, then every second
    assert numbers["steps"] < numbers["planned"] == 400
    assert numbers["steps"] >= 50
    assert numbers["evaluations"] == 1 + numbers["steps"] // 2
    assert sum(row["mask_AP"] is not None for row in curve) == numbers["evaluations"]
    assert max(row["mask_AP"] for row in curve if row["mask_AP"] is not None) == numbers["validation_mask_AP"]


def test_the_last_step_is_evaluated(data, tmp_path):
    s = steps(5, early_stopping=EarlyStopping(every=100))
    numbers, curve = training.train(*data, tmp_path / "model", detector(), s, 1, None, data[0])
    assert (numbers["evaluations"], numbers["best_step"]) == (1, 5)
    assert curve[-1]["mask_AP"] == numbers["validation_mask_AP"]


def test_early_stopping_without_validation_images(data, tmp_path):
    empty = {**data[0], "images": [], "annotations": []}
    with pytest.raises(UserError, match=r"early_stopping needs validation images.*split\.validation_fraction"):
        training.train(*data, tmp_path, detector(), steps(5, early_stopping=EarlyStopping(every=1)), 1, None, empty)


# labels made by a model


def by_model(data, scores: dict[int, float]) -> dict:
    """The labels with those of some images made by a model."""
    return {
        **data[0],
        "images": [{**i, "source": "model" if i["id"] in scores else "human"} for i in data[0]["images"]],
        "annotations": [
            {**a, "source": "model", "score": scores[a["image_id"]]} if a["image_id"] in scores else a for a in data[0]["annotations"]
        ],
    }


def losses_of(data, labels: dict, settings: ModelLabels) -> dict[str, float]:
    make_deterministic(0)
    cfg = build_config(detector(options={"SOLVER.IMS_PER_BATCH": 4}), 2)
    model = build_model(cfg).train()
    records = [r for r in to_records(believed(labels, settings), data[1]) if r["image_id"] in (1, 3, 5, 7)]
    losses = Losses(model, settings)
    torch.manual_seed(0)
    with EventStorage():
        return {name: value.item() for name, value in losses(next(batches(records, cfg, 0, 0, 1))).items()}


def test_weight_scales_the_loss_of_a_models_labels(data):
    everything = by_model(data, dict.fromkeys(range(1, 12), 0.9))
    one, half = (losses_of(data, everything, ModelLabels(weight=w)) for w in (1.0, 0.5))
    assert half == pytest.approx({name: value / 2 for name, value in one.items()}, rel=1e-5)
    humans = losses_of(data, data[0], ModelLabels(weight=0.5))
    assert humans == pytest.approx(losses_of(data, data[0], ModelLabels()), rel=1e-5)


def test_mask_weight_scales_the_mask_loss_of_a_models_instances_alone(data):
    """Against Detectron2's own losses: of the model's instances alone, of all by humans, and of both in one batch."""
    everything, mixed = by_model(data, dict.fromkeys(range(1, 12), 0.9)), by_model(data, {1: 0.9, 3: 0.9})
    own = losses_of(data, data[0], ModelLabels())
    for w in (0.0, 0.5):
        weighted = losses_of(data, everything, ModelLabels(mask_weight=w))
        assert weighted == pytest.approx({**own, "loss_mask": w * own["loss_mask"]}, rel=1e-5)
        assert losses_of(data, data[0], ModelLabels(mask_weight=w)) == pytest.approx(own, rel=1e-5)
    nothing, half = (losses_of(data, mixed, ModelLabels(mask_weight=w))["loss_mask"] for w in (0.0, 0.5))
    assert 0 < nothing < own["loss_mask"]
    assert half == pytest.approx((nothing + own["loss_mask"]) / 2, rel=1e-5)


def test_a_checkpoint_knows_the_code_that_it_depends_on():
    """A file that is not there would count as one that never changes."""
    code = used_by("vlm_itl.detectors.mask_rcnn.detector")
    assert {"training.py", "labels.py", "detection.py", "prediction.py", "config.py"} <= {path.name for path in code}


def test_doubted_annotations_are_left_out_and_their_images_teach_no_background(data):
    labels = by_model(data, {1: 0.9, 3: 0.2})
    settings = ModelLabels(min_score=0.5)
    kept = believed(labels, settings)
    assert {a["image_id"] for a in kept["annotations"]} == {a["image_id"] for a in labels["annotations"]} - {3}
    assert [i["id"] for i in kept["images"] if i.get("incomplete")] == [3]
    assert believed(labels, ModelLabels()) == labels

    def labelled(settings: ModelLabels) -> tuple[list, list]:
        """(RPN labels, ROI classes) of image 3, whose one annotation is doubted."""
        make_deterministic(0)
        cfg = build_config(detector(options={"SOLVER.IMS_PER_BATCH": 1}), 2)
        model = build_model(cfg).train()
        record = next(r for r in to_records(believed(labels, settings), data[1]) if r["image_id"] == 3)
        losses = Losses(model, settings)
        seen: tuple[list, list] = ([], [])
        rpn, heads = model.proposal_generator, model.roi_heads
        anchors, proposals = rpn.label_and_sample_anchors, heads.label_and_sample_proposals
        rpn.label_and_sample_anchors = lambda *a: [seen[0].extend((r := anchors(*a))[0][0].unique().tolist()), r][1]
        heads.label_and_sample_proposals = lambda *a: [seen[1].extend((r := proposals(*a))[0].gt_classes.tolist()), r][1]
        with EventStorage():
            result = losses([Samples([record], cfg, 0)[0, 0]])
        assert all(torch.isfinite(v) for v in result.values())
        return seen

    rpn, roi = labelled(settings)
    assert 0 in rpn
    assert set(roi) == {2}  # background
    rpn, roi = labelled(ModelLabels(min_score=0.5, background=False))
    assert rpn == [-1]
    assert roi == []


def test_nothing_left_to_learn_from(data, tmp_path):
    labels = by_model(data, dict.fromkeys(range(1, 12), 0.1))
    with pytest.raises(UserError, match="no labelled instance"):
        training.train(labels, data[1], tmp_path, detector(), steps(3, model_labels=ModelLabels(min_score=0.5)), 1)


# killed and started again

SCRIPT = """
import json, sys
from pathlib import Path
sys.path[:0] = [{root!r} + "/src", {root!r} + "/tests"]
from tiny_detector import detector
from vlm_itl.settings import Training
from vlm_itl.detectors.mask_rcnn.training import train
folder, work, settings = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
labels = json.loads((folder / "labels.json").read_text())
numbers, curve = train(labels, folder, work / "model", detector(), Training(**settings), 1, None, labels)
(work / "numbers.json").write_text(json.dumps([numbers, curve]))
"""


def command(data, work: Path, settings: dict) -> list[str]:
    work.mkdir(exist_ok=True)
    (data[1] / "labels.json").write_text(json.dumps(data[0]))
    return [sys.executable, "-c", SCRIPT.format(root=str(ROOT)), str(data[1]), str(work), json.dumps(settings)]


def run(words: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, env={**os.environ, **more}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)


def kill_when(words: list[str], ready, sign: int = signal.SIGKILL, **more: str) -> subprocess.Popen[str]:
    """Start, wait until `ready()`, send the signal."""
    process = subprocess.Popen(words, env={**os.environ, **more}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    end = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(sign)
    process.communicate(timeout=60)
    return process


@pytest.mark.parametrize("more", [{}, {"early_stopping": {"every": 7, "patience": 50}}], ids=["plain", "early stopping"])
def test_killed_twice_ends_with_the_bytes_of_an_unbroken_training(data, tmp_path, scratch, more):
    settings = {"schedule": "fixed_steps", "steps": 60, "learning_rate": 0.002, **more}
    unbroken = command(data, tmp_path / "unbroken", settings)
    assert run(unbroken).returncode == 0
    words = command(data, tmp_path / "broken", settings)

    def saved_at(step: int):
        def ready() -> bool:
            found = list(scratch.glob("training/*/checkpoint.pth"))
            try:
                return bool(found) and torch.load(found[0], weights_only=True)["step"] >= step
            except (OSError, RuntimeError):
                return False

        return ready

    for step in (5, 20):  # a random step after these: whatever it has come to when the kill arrives
        assert kill_when(words, saved_at(step), VLM_ITL_CHECKPOINT_SECONDS="0").returncode == -signal.SIGKILL
    assert not (tmp_path / "broken/model").exists()
    done = run(words)
    assert "going on at step" in done.stdout
    for name in ("model/model.pth", "model/config.yaml", "numbers.json"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes(), name
    assert list(scratch.glob("training/*")) == []  # cleaned up


def test_another_setting_does_not_go_on(data, tmp_path, scratch):
    settings = {"schedule": "fixed_steps", "steps": 60, "learning_rate": 0.002}
    saved = lambda: list(scratch.glob("training/*/checkpoint.pth"))  # noqa: E731
    kill_when(command(data, tmp_path / "a", settings), saved, VLM_ITL_CHECKPOINT_SECONDS="0")
    done = run(command(data, tmp_path / "b", {**settings, "steps": 5}))
    assert done.returncode == 0
    assert "going on" not in done.stdout
    assert len(saved()) == 1  # the killed one's is still there for it
    labels = {**data[0], "annotations": data[0]["annotations"][:-2]}
    assert "going on" not in run(command((labels, data[1]), tmp_path / "c", {**settings, "steps": 5})).stdout
    assert "going on at step" in run(command(data, tmp_path / "a", settings)).stdout


def test_ctrl_c_is_quick_and_keeps_the_checkpoint(data, tmp_path, scratch):
    settings = {"schedule": "fixed_steps", "steps": 5000, "learning_rate": 0.002}
    saved = lambda: list(scratch.glob("training/*/checkpoint.pth"))  # noqa: E731
    start = time.monotonic()
    words = hearing_ctrl_c(command(data, tmp_path / "a", settings))
    process = kill_when(words, saved, signal.SIGINT, VLM_ITL_CHECKPOINT_SECONDS="0")
    assert process.returncode != 0
    assert time.monotonic() - start < 60
    assert torch.load(saved()[0], weights_only=True)["step"] >= 1


def test_full_disk_is_an_error_and_not_a_torn_checkpoint(data, tmp_path):
    """On a real small file system, which needs a mount namespace of our own: the first checkpoint fits, the copy beside it does not."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare to mount a small file system with")
    settings = {"schedule": "fixed_steps", "steps": 40, "learning_rate": 0.002}
    probe = command(data, tmp_path / "probe", settings)
    folder = tmp_path / "probe-scratch"
    kill_when(probe, lambda: list(folder.glob("training/*/checkpoint.pth")), VLM_ITL_CHECKPOINT_SECONDS="0", VLM_ITL_SCRATCH=str(folder))
    size = next(folder.glob("training/*/checkpoint.pth")).stat().st_size * 3 // 2 // 1024
    small = tmp_path / "small"
    small.mkdir()
    script = (
        f'mount -t tmpfs -o size={size}k tmpfs {small} || exit 77; "$@"; code=$?; '
        f'find {small} -type f -name "*.pth" -printf "%f %s\\n"; exit $code'
    )
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", *command(data, tmp_path / "a", settings)]
    done = run(words, VLM_ITL_CHECKPOINT_SECONDS="0", VLM_ITL_SCRATCH=str(small))
    if done.returncode == 77 or "unshare failed" in done.stdout:
        pytest.skip("a small file system cannot be mounted here")
    assert done.returncode == 1
    assert "No space left on device" in done.stdout
    left = done.stdout.strip().splitlines()[-1].split()
    assert left[0] == "checkpoint.pth"
    assert int(left[1]) * 3 // 2 // 1024 == pytest.approx(size, abs=2)  # whole


def interrupted(predict, images: int, scratch: Path, monkeypatch) -> Path:
    """The progress of a prediction that Ctrl-C ends when it has got so many images."""
    real, seen = prediction.to_results, []

    def dies(image_id, *rest):
        if len(seen) == images:
            raise KeyboardInterrupt
        seen.append(image_id)
        return real(image_id, *rest)

    monkeypatch.setattr(prediction, "to_results", dies)
    with pytest.raises(KeyboardInterrupt):
        predict()
    (file,) = scratch.glob("predictions/*/images.jsonl")
    return file


def test_an_unfinished_prediction_goes_on(data, tmp_path, scratch, monkeypatch):
    training.train(*data, tmp_path / "model", detector(), steps(20), 1)
    predict = lambda: predicted(tmp_path / "model", *data, 0.05, 2)  # noqa: E731
    expected = predict()
    assert not list(scratch.glob("predictions/*"))
    real, file = prediction.to_results, interrupted(predict, 5, scratch, monkeypatch)
    assert file.read_bytes().count(b"\n") == 4
    with file.open("ab") as stream:
        stream.write(b'[]\n[{"image_id": 7, "cut')  # as a kill leaves it: half a batch
    asked = []
    monkeypatch.setattr(prediction, "to_results", lambda image_id, *rest: [asked.append(image_id), real(image_id, *rest)][1])
    assert predict() == expected
    assert asked == [9, 11, 2, 4, 6, 8, 10]  # the wide ones share batches, then the high ones; 1, 3, 5 and 7 were done
    assert not list(scratch.glob("predictions/*"))


@pytest.mark.parametrize("how", ["half", "empty", "noise", "flipped", "list"])
def test_a_damaged_checkpoint_is_discarded_and_the_training_begins_again(data, tmp_path, scratch, monkeypatch, capsys, how):
    monkeypatch.setenv("VLM_ITL_CHECKPOINT_SECONDS", "0")
    training.train(*data, tmp_path / "unbroken", detector(), steps(6), 1)
    real = training.State.save

    def dies(state):
        real(state)
        if state.step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.State, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        training.train(*data, tmp_path / "broken", detector(), steps(6), 1)
    monkeypatch.setattr(training.State, "save", real)
    (file,) = scratch.glob("training/*/checkpoint.pth")
    whole = file.read_bytes()
    middle = len(whole) // 2
    buffer = io.BytesIO()
    torch.save([1], buffer)
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]  # which torch.load itself does not notice
    damaged = {"half": whole[:middle], "empty": b"", "noise": bytes(range(256)) * 9, "flipped": flipped, "list": buffer.getvalue()}
    file.write_bytes(damaged[how])
    capsys.readouterr()
    training.train(*data, tmp_path / "broken", detector(), steps(6), 1)
    assert capsys.readouterr().out == f"{file}: damaged, so it is removed and the training begins again\n"
    assert (tmp_path / "broken/model.pth").read_bytes() == (tmp_path / "unbroken/model.pth").read_bytes()
    assert list(scratch.glob("training/*")) == []


@pytest.mark.parametrize("how", ["digit", "null", "noise", "half", "not text", "empty"])
def test_a_damaged_line_of_a_prediction_is_done_again(data, tmp_path, scratch, monkeypatch, capsys, how):
    """Also one that is whole and JSON, with another digit."""
    training.train(*data, tmp_path / "model", detector(), steps(20), 1)
    predict = lambda: predicted(tmp_path / "model", *data, 0.001, 2)  # noqa: E731
    expected, real = predict(), prediction.to_results
    file = interrupted(predict, 7, scratch, monkeypatch)
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) == 6
    digit = lines[2].replace(b'"image_id": 5', b'"image_id": 6')
    assert digit != lines[2]
    damaged = {
        "digit": digit,
        "null": b"null\n",
        "noise": b"\x00" * 30 + b"\n",
        "half": lines[2][:20] + b"\n",
        "not text": b"\xff\n",
        "empty": b"\n",
    }
    file.write_bytes(b"".join([*lines[:2], damaged[how], *lines[3:]]))
    capsys.readouterr()
    asked = []
    monkeypatch.setattr(prediction, "to_results", lambda image_id, *rest: [asked.append(image_id), real(image_id, *rest)][1])
    assert predict() == expected
    assert f"{file}: line 3 is cut short or damaged" in capsys.readouterr().out
    assert asked == [5, 7, 9, 11, 2, 4, 6, 8, 10]
    assert not list(scratch.glob("predictions/*"))


def test_damaged_batches_are_done_again(scratch, capsys):
    """The progress that others keep."""
    first = progress.Progress("kind", "key")
    assert first.load() == []
    for batch in ([[1, "a"]], [[2, "b\n"]], [[3, None]]):
        first.add(batch)
    path = scratch / "kind/key/batches.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    assert progress.Progress("kind", "key").load() == [[[1, "a"]], [[2, "b\n"]], [[3, None]]]
    for line in (b"{}\n", b"[[2\n", lines[1].replace(b"2", b"5", 1), b"\xfe\xff\n"):
        path.write_bytes(lines[0] + line + lines[2])
        again = progress.Progress("kind", "key")
        assert again.load() == [[[1, "a"]]]
        assert "batches.jsonl: line 2 is cut short or damaged" in capsys.readouterr().out
        again.add([[2, "c"]])
        assert progress.Progress("kind", "key").load() == [[[1, "a"]], [[2, "c"]]]
    path.write_bytes(b"")
    assert progress.Progress("kind", "key").load() == []


def test_a_stray_file_beside_the_states_is_left_alone(scratch):
    (scratch / "training").mkdir(parents=True)
    stray = scratch / "training/.DS_Store"
    stray.write_text("x")
    past = time.time() - 15 * 86400
    os.utime(stray, (past, past))
    checkpoint.Checkpoint("new")
    assert stray.exists()


def test_what_nobody_went_on_with_is_removed(scratch):
    old, young = (scratch / "training" / name for name in ("old", "young"))
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "checkpoint.pth").write_text("x")
    past = time.time() - 15 * 86400
    os.utime(old, (past, past))
    checkpoint.Checkpoint("new")
    assert sorted(p.name for p in (scratch / "training").iterdir()) == ["new", "young"]


def test_what_another_process_uses_is_kept_however_old_a_wrong_clock_makes_it(scratch):
    code = "from vlm_itl.resume import progress; print(progress.state_folder('training', 'theirs'), flush=True); input()"
    past = time.time() - 15 * 86400
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT / "src", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:  # fmt: skip
        assert other.stdin
        assert other.stdout
        theirs = Path(other.stdout.readline().strip())
        os.utime(theirs, (past, past))
        checkpoint.Checkpoint("new")
        assert theirs.exists()
        other.stdin.write("\n")
    os.utime(theirs, (past, past))
    checkpoint.Checkpoint("another")
    assert not theirs.exists()


# an image's prediction depends on the image alone


def mixed(folder: Path) -> dict:
    """Twelve noisy pictures of six shapes, four of which are resized to shapes that are padded alike, two by two."""
    rng = np.random.default_rng(3)
    images = []
    for k, (height, width) in enumerate([(48, 64), (64, 48), (60, 61), (30, 120), (49, 64), (120, 31)] * 2, 1):
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / f"{k}.png")
        images.append({"id": k, "file_name": f"{k}.png", "height": height, "width": width})
    return {"images": images, "annotations": [], "categories": [{"id": 16, "name": "bird"}, {"id": 84, "name": "book"}]}


def by_image(rows: list[dict], image_id: int) -> list[dict]:
    return [row for row in rows if row["image_id"] == image_id]


def assert_alike(rows: list[dict], others: list[dict]) -> None:
    """Equal to rounding: another number of images in a batch is another convolution of torch's."""
    assert [r["category_id"] for r in rows] == [r["category_id"] for r in others]
    assert [r["score"] for r in rows] == pytest.approx([r["score"] for r in others], abs=2e-6)
    for one, other in zip(rows, others):
        a, b = decode(one["segmentation"]), decode(other["segmentation"])
        assert (a != b).sum() <= 0.001 * a.size + 1


def test_an_image_is_predicted_as_if_it_were_alone(data, tmp_path):
    training.train(*data, tmp_path / "model", detector(), steps(40), 1)
    pool = mixed(tmp_path)
    together = predicted(tmp_path / "model", pool, tmp_path, 0.001, 8)
    assert [r["image_id"] for r in together] == sorted(r["image_id"] for r in together)  # in the order of the images
    assert len({r["image_id"] for r in together}) > 6  # how many of the 12 depends on rounding
    for image in pool["images"]:
        alone = predicted(tmp_path / "model", {**pool, "images": [image]}, tmp_path, 0.001, 8)
        assert_alike(by_image(together, image["id"]), alone)
    # beside pictures of other shapes it is alone in its batch: equal to the last bit
    strangers = [pool["images"][k] for k in (0, 1, 3, 5)]
    apart = predicted(tmp_path / "model", {**pool, "images": strangers}, tmp_path, 0.001, 8)
    for image in strangers:
        assert by_image(apart, image["id"]) == predicted(tmp_path / "model", {**pool, "images": [image]}, tmp_path, 0.001, 8)


def test_validation_takes_the_same_road(data, tmp_path):
    """What early stopping looks at, on a model that is being trained."""
    cfg = build_config(detector(), 2)
    torch.manual_seed(0)
    model, pool = build_model(cfg), mixed(tmp_path)
    see = lambda images: prediction.predict(model, cfg, {**pool, "images": images}, tmp_path, 0.02, 8, "validating")  # noqa: E731
    together = see(pool["images"])
    assert together
    for image in pool["images"]:
        assert_alike(by_image(together, image["id"]), see([image]))


def test_batches_are_padded_alike(tmp_path):
    from detectron2.structures import ImageList

    cfg = build_config(detector(), 2)
    model, pool = build_model(cfg), mixed(tmp_path)
    made = prediction.batches(model, cfg, pool["images"], 3)
    assert sorted(i["id"] for batch in made for i in batch) == list(range(1, 13))
    assert max(map(len, made)) == 3
    for batch in made:
        inputs = next(prediction._load(pool, tmp_path, cfg, [batch]))
        assert [x["image_id"] for x in inputs] == [i["id"] for i in batch]
        shapes = {tuple(ImageList.from_tensors([x["image"]], 32).tensor.shape) for x in inputs}
        assert len(shapes) == 1


def test_ids_may_be_nothing_or_huge(data, tmp_path):
    """Image and class ids are the user's: 0, and beyond 63 bits."""
    ids, classes = {k: 2**63 + k if k % 2 else k - 2 for k in range(1, 12)}, {16: 0, 84: 2**64}
    renamed = {
        "images": [{**i, "id": ids[i["id"]]} for i in data[0]["images"]],
        "annotations": [
            {**a, "id": a["id"] - 1, "image_id": ids[a["image_id"]], "category_id": classes[a["category_id"]]}
            for a in data[0]["annotations"]
        ],
        "categories": [{**c, "id": classes[c["id"]]} for c in data[0]["categories"]],
    }
    assert 0 in ids.values()
    for name, labels in (("a", data[0]), ("b", renamed)):
        training.train(labels, data[1], tmp_path / name, detector(), steps(10, model_labels=ModelLabels(min_score=0.1, weight=0.5)), 1)
    assert (tmp_path / "a/model.pth").read_bytes() == (tmp_path / "b/model.pth").read_bytes()
    rows = predicted(tmp_path / "a", *data, 0.01, 2)
    assert rows
    expected = [{**r, "image_id": ids[r["image_id"]], "category_id": classes[r["category_id"]]} for r in rows]
    assert predicted(tmp_path / "b", renamed, data[1], 0.01, 2) == expected


@pytest.mark.parametrize("size", [(1500, 3), (3, 1500), (1, 1), (5000, 1)], ids=str)
def test_the_narrowest_pictures_train_and_predict(size, tmp_path):
    height, width = size
    Image.fromarray(np.full((height, width, 3), 200, np.uint8)).save(tmp_path / "1.png")
    annotation = {"id": 1, "image_id": 1, "category_id": 7, "segmentation": rectangle(height, width, 0, 0, width, height),
                  "bbox": [0.0, 0.0, float(width), float(height)], "area": float(width * height), "iscrowd": 0}  # fmt: skip
    image = {"id": 1, "file_name": "1.png", "height": height, "width": width}
    labels = {"images": [image], "annotations": [annotation], "categories": [{"id": 7, "name": "bird"}]}
    s = steps(4, early_stopping=EarlyStopping(every=2))
    numbers, curve = training.train(labels, tmp_path, tmp_path / "model", detector(), s, 1, None, labels)
    assert numbers["steps"] == 4
    assert all(row["loss"] is None or row["loss"] >= 0 for row in curve)
    for row in predicted(tmp_path / "model", labels, tmp_path, 0.0, 2):
        assert row["segmentation"]["size"] == [height, width]


def test_a_pool_without_a_proposal_is_said_once_with_the_highest_score(data, tmp_path):
    training.train(*data, tmp_path / "model", detector(), steps(20), 1)
    best = max(row["score"] for row in predicted(tmp_path / "model", *data, 0.0, 4))
    assert 0 < best < 0.99
    (tmp_path / "pool.json").write_text(json.dumps(data[0]))
    params = (ROOT / "params.yaml").read_text().replace("score_threshold: ", "score_threshold: 0.99  # ", 1)
    files = {"pool": "pool.json", "test": "pool.json", "model": "model", "proposals": "proposals.json", "predictions": "test.json"}
    words = [sys.executable, "-m", "stages.predict", f"--images={data[1]}", *(f"--{k}={tmp_path / v}" for k, v in files.items())]
    (tmp_path / "params.yaml").write_text(params)
    done = subprocess.run(words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "proposals.json").read_text()) == []
    said = [line for line in done.stdout.splitlines() if "no instance of" in line]
    assert said == [
        f"predicting the pool: no instance of 11 images has a score of 0.99 or more; the highest score is {best} (in 11 images); a lower "
        "threshold (predict), a longer training (pretrain, train) or better weights (detector.init) may help"
    ]
    files = {
        "pool": "pool.json",
        "truth": "pool.json",
        "proposals": "proposals.json",
        "verdicts": "v.jsonl",
        "identity": "i.json",
        "metrics": "m.json",
    }
    judge = [sys.executable, "-m", "stages.judge", "--judge=always", f"--images={data[1]}", f"--folder={ROOT / 'judges/always'}"]
    judge += [f"--{k}={tmp_path / v}" for k, v in files.items()]
    done = subprocess.run(judge, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.stdout == "always: no proposals to judge in 11 images of this round's batch\n", done.stderr
    (tmp_path / "params.yaml").write_text(params.replace("score_threshold: 0.99", "score_threshold: 0.001", 1))
    done = subprocess.run(words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert "no instance of" not in done.stdout


def test_mixed_precision_trains(data, tmp_path):
    numbers, curve = training.train(*data, tmp_path / "model", detector(options={"SOLVER.AMP.ENABLED": True}), steps(30), 1)
    assert numbers["steps"] == 30
    assert sum(r["loss"] for r in curve[-5:]) < sum(r["loss"] for r in curve[:5])
