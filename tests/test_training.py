"""Schedules, early stopping, model labels believed less, and trainings and predictions that are really killed."""

from __future__ import annotations

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

import pytest
from conftest import ROOT, hearing_ctrl_c
from tiny_detector import detector, pictures, predicted, steps

from vlm_itl.base.errors import UserError
from vlm_itl.base.settings import EarlyStopping, ModelLabels, Training

torch = pytest.importorskip("torch")
from detectron2.layers.mask_ops import paste_masks_in_image  # noqa: E402  (before `faster` replaces it)
from detectron2.modeling import build_model  # noqa: E402
from detectron2.utils.events import EventStorage  # noqa: E402

from vlm_itl import checkpoint  # noqa: E402
from vlm_itl.detector import model_labels, training  # noqa: E402
from vlm_itl.detector.config import build_config, make_deterministic  # noqa: E402
from vlm_itl.detector.speed import nms_by_level, paste  # noqa: E402
from vlm_itl.detector.stream import Samples, batches, order, to_records  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("images"))


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("VLM_ITL_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


# schedules


def test_steps_by_hand():
    assert Training(epochs=30).optimiser_steps(11, 2) == 165
    assert Training(epochs=0.01).optimiser_steps(1, 8) == 1
    assert [steps(300).optimiser_steps(n, 8) for n in (1, 72, 5000)] == [300] * 3
    adaptive = Training(schedule="adaptive", steps=240, images=72)
    assert [adaptive.optimiser_steps(n, 8) for n in (72, 4 * 72, 18, 360)] == [240, 480, 120, 537]  # times the root of n / 72
    linear = Training(schedule="adaptive", steps=90, images=20, growth=1)
    assert [linear.optimiser_steps(n, 2) for n in (20, 40, 10)] == [Training(epochs=9).optimiser_steps(n, 2) for n in (20, 40, 10)]


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


# the stream


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
    monkeypatch.setattr("vlm_itl.detector.stream.KEPT_BYTES", 0)
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
    records = [r for r in to_records(model_labels.believed(labels, settings), data[1]) if r["image_id"] in (1, 3, 5, 7)]
    losses = model_labels.Losses(model, settings)
    torch.manual_seed(0)
    with EventStorage():
        return {name: value.item() for name, value in losses(next(batches(records, cfg, 0, 0, 1))).items()}


def test_weight_scales_the_loss_of_a_models_labels(data):
    everything = by_model(data, dict.fromkeys(range(1, 12), 0.9))
    one, half = (losses_of(data, everything, ModelLabels(weight=w)) for w in (1.0, 0.5))
    assert half == pytest.approx({name: value / 2 for name, value in one.items()}, rel=1e-5)
    humans = losses_of(data, data[0], ModelLabels(weight=0.5))
    assert humans == pytest.approx(losses_of(data, data[0], ModelLabels()), rel=1e-5)


def test_doubted_annotations_are_left_out_and_their_images_teach_no_background(data):
    labels = by_model(data, {1: 0.9, 3: 0.2})
    settings = ModelLabels(min_score=0.5)
    believed = model_labels.believed(labels, settings)
    assert {a["image_id"] for a in believed["annotations"]} == {a["image_id"] for a in labels["annotations"]} - {3}
    assert [i["id"] for i in believed["images"] if i.get("incomplete")] == [3]
    assert model_labels.believed(labels, ModelLabels()) == labels

    def labelled(settings: ModelLabels) -> tuple[list, list]:
        """(RPN labels, ROI classes) of image 3, whose one annotation is doubted."""
        make_deterministic(0)
        cfg = build_config(detector(options={"SOLVER.IMS_PER_BATCH": 1}), 2)
        model = build_model(cfg).train()
        record = next(r for r in to_records(model_labels.believed(labels, settings), data[1]) if r["image_id"] == 3)
        losses = model_labels.Losses(model, settings)
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
from vlm_itl.base.settings import Training
from vlm_itl.detector.training import train
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
    script = f'mount -t tmpfs -o size={size}k tmpfs {small} || exit 77; "$@"; code=$?; find {small} -type f -printf "%f %s\\n"; exit $code'
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", *command(data, tmp_path / "a", settings)]
    done = run(words, VLM_ITL_CHECKPOINT_SECONDS="0", VLM_ITL_SCRATCH=str(small))
    if done.returncode == 77 or "unshare failed" in done.stdout:
        pytest.skip("a small file system cannot be mounted here")
    assert done.returncode == 1
    assert "No space left on device" in done.stdout
    left = done.stdout.strip().splitlines()[-1].split()
    assert left[0] == "checkpoint.pth"
    assert int(left[1]) * 3 // 2 // 1024 == pytest.approx(size, abs=2)  # whole


def test_an_unfinished_prediction_goes_on(data, tmp_path, scratch, monkeypatch):
    from vlm_itl.detector import prediction

    training.train(*data, tmp_path / "model", detector(), steps(20), 1)
    predict = lambda: predicted(tmp_path / "model", *data, 0.05, 2)  # noqa: E731
    expected = predict()
    assert not list(scratch.glob("predictions/*"))
    real, seen = prediction.to_results, []

    def dies(image_id, *rest):
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(image_id)
        return real(image_id, *rest)

    monkeypatch.setattr(prediction, "to_results", dies)
    with pytest.raises(KeyboardInterrupt):
        predict()
    (file,) = scratch.glob("predictions/*/images.jsonl")
    assert file.read_bytes().count(b"\n") == 4
    with file.open("ab") as stream:
        stream.write(b'[]\n[{"image_id": 7, "cut')  # as a kill leaves it: half a batch
    asked = []
    monkeypatch.setattr(prediction, "to_results", lambda image_id, *rest: [asked.append(image_id), real(image_id, *rest)][1])
    assert predict() == expected
    assert asked == [9, 11, 2, 4, 6, 8, 10]  # the wide ones share batches, then the high ones; 1, 3, 5 and 7 were done
    assert not list(scratch.glob("predictions/*"))


def test_what_nobody_went_on_with_is_removed(scratch):
    old, young = (scratch / "training" / name for name in ("old", "young"))
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "checkpoint.pth").write_text("x")
    past = time.time() - 15 * 86400
    os.utime(old, (past, past))
    checkpoint.Checkpoint("new")
    assert [p.name for p in (scratch / "training").iterdir()] == ["young"]


def test_mixed_precision_trains(data, tmp_path):
    numbers, curve = training.train(*data, tmp_path / "model", detector(options={"SOLVER.AMP.ENABLED": True}), steps(30), 1)
    assert numbers["steps"] == 30
    assert sum(r["loss"] for r in curve[-5:]) < sum(r["loss"] for r in curve[:5])
