"""Trainings and predictions that two real CPU processes share, over gloo, beside those of one."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from tiny_detector import detector, pictures, steps

from vlm_itl.core.errors import UserError
from vlm_itl.settings import Detector, EarlyStopping, ModelLabels, Training

torch = pytest.importorskip("torch")
from detectron2.modeling import build_model  # noqa: E402
from detectron2.utils.events import EventStorage  # noqa: E402

from vlm_itl.detectors.mask_rcnn import prediction  # noqa: E402
from vlm_itl.detectors.mask_rcnn.batches import batches, to_records  # noqa: E402
from vlm_itl.detectors.mask_rcnn.config import build_config, make_deterministic  # noqa: E402
from vlm_itl.detectors.mask_rcnn.losses import Losses  # noqa: E402
from vlm_itl.detectors.mask_rcnn.processes import gathered, launch, rank, total, world  # noqa: E402
from vlm_itl.detectors.mask_rcnn.sharing import SharedBatchNorm, average_gradients, share  # noqa: E402
from vlm_itl.detectors.mask_rcnn.training import train  # noqa: E402

# upright and lying pictures in one batch, so that each process alone would pad to another size
BATCH = {"SOLVER.IMS_PER_BATCH": 4, "DATALOADER.ASPECT_RATIO_GROUPING": False, "INPUT.MIN_SIZE_TRAIN": [96, 120]}
GROUP = {
    "MODEL.RESNETS.NORM": "GN", "MODEL.RESNETS.STEM_OUT_CHANNELS": 32, "MODEL.FPN.OUT_CHANNELS": 32, "MODEL.FPN.NORM": "GN",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[dict, Path]:
    """The eleven pictures, of which the first two have a second instance: images with two, one and none."""
    labels, folder = pictures(tmp_path_factory.mktemp("images"))
    more = [{**a, "id": a["id"] + 100, "category_id": 100 - a["category_id"]} for a in labels["annotations"][:2]]
    return {**labels, "annotations": labels["annotations"] + more}, folder


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("VLM_ITL_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


# called in the processes


def first_step(settings: Detector, data, believed: ModelLabels, at: int) -> dict[str, Any]:
    """Each loss of the whole batch of step `at`, how large its gradient is, and the running statistics after it."""
    make_deterministic(1)
    cfg = build_config(settings, 2)
    model = build_model(cfg).train()
    share(model)
    losses_of = Losses(model, believed, 1)
    with EventStorage():
        losses = losses_of(next(batches(to_records(*data), cfg, 1, at, at + 1)))
    torch.stack(list(losses.values())).sum().backward()
    average_gradients(model.parameters())
    return {
        "losses": {name: (total(value.detach()) / world()).item() for name, value in losses.items()},
        "gradients": {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None},
        "statistics": {name: b.double().norm().item() for name, b in model.named_buffers() if "running" in name or "num_" in name},
    }


def trained(folder: Path, *arguments: Any) -> tuple[dict, list]:
    """Train and check that all processes end with the same weights, in `folder/RANK.pth` too."""
    from vlm_itl.detectors.mask_rcnn import training

    save = training.State.row

    def row(self) -> None:
        save(self)
        torch.save(self.model.state_dict(), folder / f"{rank()}.pth")

    training.State.row = row
    try:
        return train(*arguments)
    finally:
        training.State.row = save


def normalised(inputs: list[torch.Tensor], weights: list[torch.Tensor]) -> list[tuple]:
    """Of each process output, gradient of its input, state and gradient of the weight."""
    norm, x = SharedBatchNorm(5), inputs[rank()].requires_grad_()
    norm.counts = len(x) > 0
    y = norm(x)
    (y * weights[rank()]).sum().backward()
    return gathered((y.detach(), x.grad, norm.state_dict(), norm.weight.grad))


def noting(folder: Path, *arguments: Any) -> None:
    """Predict and write down which images, each process into `folder/RANK`."""
    real = prediction.to_results
    with (folder / str(rank())).open("w") as stream:
        prediction.to_results = lambda image_id, *rest: [print(image_id, file=stream, flush=True), real(image_id, *rest)][1]
        prediction.predict_sets(*arguments)


def fails_in_one(how: str) -> None:
    """In one process, while the other waits for it."""
    if rank() == 1:
        if how == "user":
            raise UserError("params.yaml: one line")
        if how == "disk":
            raise OSError(28, "No space left on device", "model.pth")
        if how == "bug":
            raise ZeroDivisionError("a bug")
        os.kill(os.getpid(), signal.SIGKILL)
    total(torch.ones(1))


# one step


def by_model(data, ids: set[int]) -> tuple[dict, Path]:
    """The labels of some images are a model's."""
    return {**data[0], "images": [{**i, "source": "model" if i["id"] in ids else "human"} for i in data[0]["images"]]}, data[1]


@pytest.mark.parametrize(
    ("options", "believed"),
    [
        ({}, ModelLabels()), (GROUP, ModelLabels()),
        ({}, ModelLabels(weight=0.5)),
    ],
    ids=["batch normalisation", "group normalisation", "weighted labels of a model"],
)  # fmt: skip
def test_the_losses_of_a_step_are_one_processs(data, options, believed):
    settings = detector(options={**BATCH, **options})
    if believed.weight != 1:  # some of the images: a process may have none
        records = to_records(*data)
        cfg = build_config(settings, 2)
        make_deterministic(1)
        data = by_model(data, {next(batches(records, cfg, 1, 0, 1))[0]["image_id"]})
    alone, shared = first_step(settings, data, believed, 0), launch(first_step, 2, "cpu", settings, data, believed, 0)
    assert set(alone["losses"]) == {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"}
    assert all(value > 0 for value in alone["losses"].values())
    assert shared["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert shared["statistics"] == pytest.approx(alone["statistics"], rel=1e-5)
    assert shared["gradients"] == pytest.approx(alone["gradients"], rel=1e-3, abs=1e-6)


def test_shared_batch_normalisation_is_that_of_the_whole_batch():
    """Also where one process has more of the batch, and where one has nothing of it."""
    torch.manual_seed(0)
    x, weight = torch.randn(7, 5, 6, 4) * 3 + 10, torch.randn(7, 5, 6, 4)
    whole = torch.nn.BatchNorm2d(5)
    x.requires_grad_()
    y = whole(x)
    (y * weight).sum().backward()
    for sizes in ((3, 4), (6, 1), (7, 0)):
        shares = launch(normalised, 2, "cpu", list(x.detach().split(sizes)), list(weight.split(sizes)))
        assert torch.allclose(torch.cat([s[0] for s in shares]), y, atol=1e-5)
        assert torch.allclose(torch.cat([s[1] for s in shares]), x.grad, atol=1e-5)
        for name, value in whole.state_dict().items():
            assert torch.allclose(shares[0][2][name], value, rtol=1e-5), name
        assert torch.allclose(shares[0][3] + shares[1][3], whole.weight.grad, rtol=1e-4)


def test_weights_after_three_steps(data, tmp_path):
    # not AdamW, which turns the rounding of a gradient near nothing into a step
    arguments = detector(options={**BATCH, **GROUP, "SOLVER.OPTIMIZER": "SGD"}), steps(3), 1
    numbers, curve = train(*data, tmp_path / "alone", *arguments)
    shared = launch(trained, 2, "cpu", tmp_path, *data, tmp_path / "shared", *arguments)
    assert shared[0] == numbers
    for a, b in zip(curve, shared[1]):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-3)
    assert (tmp_path / "alone/config.yaml").read_text() == (tmp_path / "shared/config.yaml").read_text()
    one, two = (torch.load(tmp_path / name / "model.pth", weights_only=True)["model"] for name in ("alone", "shared"))
    assert list(one) == list(two)
    for name, value in one.items():
        assert (two[name] - value).double().norm() <= 1e-3 * value.double().norm() + 1e-6, name
    first, second = (torch.load(tmp_path / f"{k}.pth", weights_only=True) for k in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(first[name], two[name]) for name in first)


# prediction


def test_predictions_are_one_processs_in_order(data, tmp_path, scratch):
    train(*data, tmp_path / "model", detector(), steps(40), 1)
    every = data[0]["images"]
    parts = [{**data[0], "images": images} for images in (every, every[:5], every[:1], [])]  # 6, 3, 1 and 0 batches of two
    alone, shared = [], []
    for way, rows in (("alone", alone), ("shared", shared)):
        targets = [tmp_path / f"{way}-{len(part['images'])}.json" for part in parts]
        sets = [(part, 0.01, "test", target) for part, target in zip(parts, targets)]
        launch(prediction.predict_sets, 1 if way == "alone" else 2, "cpu", tmp_path / "model", "cpu", 5, 2, data[1], sets)
        rows += [json.loads(target.read_text()) for target in targets]
    assert alone[0]
    place = {image["id"]: k for k, image in enumerate(every)}
    assert [place[row["image_id"]] for row in alone[0]] == sorted(place[row["image_id"]] for row in alone[0])
    assert [len(rows) for rows in shared] == [len(rows) for rows in alone]
    keys = ("image_id", "category_id")
    for one, two in zip(alone, shared):
        assert [[row[k] for k in keys] for row in two] == [[row[k] for k in keys] for row in one]
        assert [row["score"] for row in two] == pytest.approx([row["score"] for row in one], abs=1e-4)
    assert not list(scratch.glob("predictions/*"))


def test_validation_is_shared(data, tmp_path):
    settings = steps(5, early_stopping=EarlyStopping(every=2))
    numbers, curve = launch(train, 2, "cpu", *data, tmp_path / "model", detector(), settings, 1, None, data[0])
    assert numbers["evaluations"] == 3
    assert max(row["mask_AP"] for row in curve if row["mask_AP"] is not None) == numbers["validation_mask_AP"]


# what goes wrong


def test_a_batch_that_cannot_be_shared(data, tmp_path):
    with pytest.raises(UserError, match=r"^2 processes \(detector\.processes\) cannot share SOLVER\.IMS_PER_BATCH 3 equally$"):
        launch(train, 2, "cpu", *data, tmp_path, detector(options={"SOLVER.IMS_PER_BATCH": 3}), steps(1), 1)


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"detector\.processes: 2, but torch sees 1 GPU"):
        launch(rank, 2, "cuda")


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("user", UserError, r"^params\.yaml: one line$"), ("disk", OSError, r"No space left on device: 'model\.pth'"),
        ("kill", UserError, r"^one of 2 processes was ended by SIGKILL, so all were"), ("bug", Exception, "ZeroDivisionError: a bug"),
    ],
)  # fmt: skip
def test_an_error_in_one_ends_all(how, kind, message):
    start = time.monotonic()
    with pytest.raises(kind, match=message):
        launch(fails_in_one, 2, "cpu", how)
    assert time.monotonic() - start < 60
    assert children(os.getpid()) == []


def test_a_loss_that_is_not_finite_ends_all(data, tmp_path):
    options = {"SOLVER.CLIP_GRADIENTS.ENABLED": False, "SOLVER.OPTIMIZER": "SGD"}
    settings = Training(epochs=20, learning_rate=1e12)
    with pytest.raises(UserError, match=r"not finite at step \d+ of .* lower train\.learning_rate"):
        launch(train, 2, "cpu", *data, tmp_path / "model", detector(options=options), settings, 1)


# killed and started again

SCRIPT = """
import json, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as shells have it in what they start in the background
sys.path[:0] = [{root!r} + "/src", {root!r} + "/tests"]
from tiny_detector import detector
from vlm_itl.core.errors import UserError
from vlm_itl.settings import Training
from vlm_itl.detectors.mask_rcnn.processes import launch
from vlm_itl.detectors.mask_rcnn.training import train
folder, work = Path(sys.argv[1]), Path(sys.argv[2])
labels = json.loads((folder / "labels.json").read_text())
settings = Training(schedule="fixed_steps", steps=40, learning_rate=0.002)
try:
    launch(train, 2, "cpu", labels, folder, work, detector(), settings, 1)
except UserError as error:
    sys.exit(f"error: {{error}}")
"""


def children(parent: int) -> list[int]:
    """Processes that multiprocessing started for `parent`, but for its watcher."""
    found = []
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        try:
            if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(int(pid))
        except OSError:  # gone since
            pass
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_runs_in_the_background_does_not_hear_the_terminals_ctrl_c(data, tmp_path, scratch):
    """SIGINT ignored, as a shell has it there: what Ctrl-C sends to the whole group changes nothing, in no process."""
    (data[1] / "labels.json").write_text(json.dumps(data[0]))
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(root=str(ROOT)), str(data[1]), str(tmp_path / "model")], start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "VLM_ITL_CHECKPOINT_SECONDS": "0"},
    )  # fmt: skip
    end = time.monotonic() + 120
    while not list(scratch.glob("training/*/checkpoint.pth")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert (tmp_path / "model/model.pth").exists()


def test_killed_ends_all_and_goes_on_to_the_same_bytes(data, tmp_path, scratch):
    (data[1] / "labels.json").write_text(json.dumps(data[0]))

    def start(name: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", SCRIPT.format(root=str(ROOT)), str(data[1]), str(tmp_path / name)]
        return subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "VLM_ITL_CHECKPOINT_SECONDS": "0"}
        )

    def saved() -> int:
        found = list(scratch.glob("training/*/checkpoint.pth"))
        return torch.load(found[0], weights_only=True)["step"] if found else 0

    assert start("unbroken").wait(300) == 0
    for step, victim in ((3, "child"), (15, "parent")):
        process = start("broken")
        end = time.monotonic() + 120
        while saved() < step:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.02)
        both = children(process.pid)
        assert len(both) == 2
        os.kill(both[1] if victim == "child" else process.pid, signal.SIGKILL)
        output = process.communicate(timeout=60)[0]
        if victim == "child":
            assert process.returncode == 1
            assert "error: one of 2 processes was ended by SIGKILL, so all were" in output  # behind what is left of the progress bar
            assert "Traceback" not in output
        end = time.monotonic() + 30
        while any(alive(pid) for pid in both):
            assert time.monotonic() < end
            time.sleep(0.1)
    process = start("broken")
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert output.count("going on at step") == 1
    for name in ("model.pth", "config.yaml"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()
    assert list(scratch.glob("training/*")) == []


PREDICT = """
import sys
sys.path[:0] = [{root!r} + "/src", {root!r} + "/tests"]
import pickle
from test_processes import launch, noting
launch(noting, 2, "cpu", *pickle.loads(open(sys.argv[1], "rb").read()))
"""


def test_a_killed_prediction_goes_on_with_the_batches_that_are_left(data, tmp_path, scratch):
    """All processes killed at once, while they predict the second set: nothing of the first is predicted again."""
    train(*data, tmp_path / "model", detector(), steps(40), 1)
    every = data[0]["images"]
    many = {**data[0], "images": [{**image, "id": image["id"] + 100 * k} for k in range(1, 9) for image in every]}

    def arguments(name: str) -> tuple:
        (tmp_path / name).mkdir()
        sets = [(part, 0.01, "test", tmp_path / name / f"{k}.json") for k, part in enumerate((data[0], many))]
        return tmp_path / name, tmp_path / "model", "cpu", 5, 2, data[1], sets

    launch(noting, 2, "cpu", *arguments("unbroken"))
    (tmp_path / "arguments").write_bytes(pickle.dumps(arguments("broken")))
    process = subprocess.Popen(
        [sys.executable, "-c", PREDICT.format(root=str(ROOT)), str(tmp_path / "arguments")],
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    end = time.monotonic() + 120
    lines = lambda: sorted(file.read_bytes().count(b"\n") for file in scratch.glob("predictions/*/images.jsonl"))  # noqa: E731
    while len(lines()) < 4 or lines()[2] < 10:  # two processes, two sets
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (tmp_path / "broken/1.json").exists()
    done = [number - number % 2 for number in lines()[2:]]
    assert lines()[:2] == [5, 6]
    launch(noting, 2, "cpu", *arguments("again"))
    for name in ("0.json", "1.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()
    assert json.loads((tmp_path / "again/1.json").read_text())
    left = []
    for number in (0, 1):
        asked, of = ((tmp_path / name / str(number)).read_text().split() for name in ("again", "unbroken"))
        of = [image for image in of if int(image) > 100]
        assert 0 < len(asked) < len(of)
        assert asked == of[-len(asked) :]
        left.append(len(of) - len(asked))
    assert sorted(left) == done
    assert not list(scratch.glob("predictions/*"))


def torchrun_report(folder: Path) -> None:
    """What one process of torchrun sees."""
    result = launch(lambda: [rank(), world(), total(torch.ones(1)).item()], 1, "cpu")
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(result))


def test_under_torchrun_it_joins(tmp_path):
    script = tmp_path / "joins.py"
    script.write_text(
        f"import sys\nsys.path[:0] = [{str(ROOT)!r} + '/src', {str(ROOT)!r} + '/tests']\n"
        f"from pathlib import Path\nfrom test_processes import torchrun_report\ntorchrun_report(Path({str(tmp_path)!r}))\n"
    )
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "0.json").read_text()) == [0, 2, 2.0]
    assert json.loads((tmp_path / "1.json").read_text()) is None
