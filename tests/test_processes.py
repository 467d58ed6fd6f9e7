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
from tiny_detector import detector, pictures, predicted, steps

from vlm_itl.core.errors import UserError
from vlm_itl.detectors.labels import believed
from vlm_itl.settings import Detector, EarlyStopping, ModelLabels, Training

torch = pytest.importorskip("torch")
import torch.distributed as dist  # noqa: E402
from detectron2.modeling import build_model  # noqa: E402
from detectron2.utils import comm  # noqa: E402
from detectron2.utils.events import EventStorage  # noqa: E402

from vlm_itl.detectors.mask_rcnn import prediction  # noqa: E402
from vlm_itl.detectors.mask_rcnn.batches import batches, to_records  # noqa: E402
from vlm_itl.detectors.mask_rcnn.config import build_config, make_deterministic  # noqa: E402
from vlm_itl.detectors.mask_rcnn.losses import Losses  # noqa: E402
from vlm_itl.detectors.mask_rcnn.processes import launch, mean, of_first  # noqa: E402
from vlm_itl.detectors.mask_rcnn.training import check_norms, train  # noqa: E402
from vlm_itl.metrics.detection import average_precision  # noqa: E402

# upright and lying pictures in one batch, so that the two parts of it are padded to different sizes
BATCH = {"SOLVER.IMS_PER_BATCH": 4, "DATALOADER.ASPECT_RATIO_GROUPING": False, "INPUT.MIN_SIZE_TRAIN": [96, 120]}
GROUP = {
    "MODEL.RESNETS.NORM": "GN", "MODEL.RESNETS.STEM_OUT_CHANNELS": 32, "MODEL.FPN.OUT_CHANNELS": 32, "MODEL.FPN.NORM": "GN",
}  # fmt: skip
# a step is the learning rate times the gradient, and nothing else
PLAIN = {
    "SOLVER.OPTIMIZER": "SGD", "SOLVER.MOMENTUM": 0.0, "SOLVER.NESTEROV": False, "SOLVER.WEIGHT_DECAY": 0.0,
    "SOLVER.WEIGHT_DECAY_NORM": 0.0, "SOLVER.CLIP_GRADIENTS.ENABLED": False,
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


def agreed(data, settings: Detector) -> dict[str, Any]:
    """How the processes are set up, what they tell each other, and the places of the images of six steps, by process."""
    cfg = build_config(settings, 2)
    places = [[sample["place"] for sample in part] for part in batches(to_records(*data), cfg, 1, 0, 6)]
    return {
        "places": comm.gather(places), "mean": mean(torch.tensor([1.0, 4.0 * comm.get_rank()])).tolist(),
        "first": comm.all_gather(of_first(lambda: f"of {comm.get_rank()}")), "threads": comm.all_gather(torch.get_num_threads()),
        "backend": dist.get_backend() if dist.is_initialized() else None,
        "gpus": comm.all_gather(torch.cuda.is_available()),
    }  # fmt: skip


def noting(folder: Path, *arguments: Any) -> None:
    """Predict and write down which images, each process into `folder/RANK`."""
    real = prediction.to_results
    with (folder / str(comm.get_rank())).open("w") as stream:
        prediction.to_results = lambda image_id, *rest: [print(image_id, file=stream, flush=True), real(image_id, *rest)][1]
        prediction.predict_sets(*arguments)


def fails_in_one(how: str) -> None:
    """In one process, while the other waits for it."""
    if comm.get_rank() == 1:
        if how == "user":
            raise UserError("params.yaml: one line")
        if how == "disk":
            raise OSError(28, "No space left on device", "model.pth")
        if how == "bug":
            raise ZeroDivisionError("a bug")
        os.kill(os.getpid(), signal.SIGKILL)
    comm.synchronize()


# one step


def doubted(data, ids: set[int], score: float) -> tuple[dict, Path]:
    """The labels of some images are a model's, of this score."""
    labels = data[0]
    images = [{**i, "source": "model" if i["id"] in ids else "human"} for i in labels["images"]]
    rows = [{**a, "source": "model", "score": score} if a["image_id"] in ids else a for a in labels["annotations"]]
    return {**labels, "images": images, "annotations": rows}, data[1]


def without(data, ids: set[int]) -> tuple[dict, Path]:
    """Some images have no annotation."""
    return {**data[0], "annotations": [a for a in data[0]["annotations"] if a["image_id"] not in ids]}, data[1]


@pytest.mark.parametrize(
    ("options", "labels", "part"),
    [
        ({}, ModelLabels(), "all"),
        (GROUP, ModelLabels(), "all"),
        ({}, ModelLabels(), "empty"),  # no foreground: the mask head has nothing to learn from
        ({}, ModelLabels(min_score=0.5, background=False), "doubted"),  # neither foreground nor background
        ({}, ModelLabels(weight=0.25), "doubted"),  # one process has the model's images alone
    ],
    ids=["batch normalisation", "group normalisation", "a part without instances", "a part without examples", "a part by a model"],
)
def test_a_step_goes_along_the_mean_gradient_of_the_parts(data, tmp_path, options, labels, part):
    """Each half of the batch computed here, by a model of its own, beside one step of two processes."""
    rate, settings = 0.5, detector(options={**BATCH, **PLAIN, **options})
    cfg = build_config(settings, 2)
    second = {x["image_id"] for x in next(batches(to_records(*data), cfg, 1, 0, 1))[2:]}
    data = {"all": data, "empty": without(data, second), "doubted": doubted(data, second, 0.4)}[part]
    learned = believed(data[0], labels)
    whole = next(batches(to_records(learned, data[1]), cfg, 1, 0, 1))
    assert ({x["image_id"] for x in whole[2:]}, len(whole)) == (second, 4)

    starts, gradients, sums, statistics = [], [], [], []
    for half in (whole[:2], whole[2:]):
        make_deterministic(1)
        model = build_model(cfg).train()
        starts.append({name: value.clone() for name, value in model.state_dict().items()})
        with EventStorage():
            loss = torch.stack(list(Losses(model, labels, 1)(half).values())).sum()
        loss.backward()
        sums.append(loss.item())
        gradients.append({name: p.grad for name, p in model.named_parameters()})
        statistics.append(dict(model.named_buffers()))
    training = Training(schedule="fixed_steps", steps=1, learning_rate=rate, model_labels=labels)
    numbers, curve = launch(train, 2, "cpu", *data, tmp_path / "model", settings, training, 1)
    after = torch.load(tmp_path / "model/model.pth", weights_only=True)["model"]

    assert numbers["steps"] == 1
    assert curve[0]["loss"] == pytest.approx(sum(sums) / 2, rel=1e-4)
    moved = 0
    for name, one in gradients[0].items():
        step = (starts[0][name] - after[name]) / rate
        expected = (one + gradients[1][name]) / 2
        assert torch.allclose(step, expected, rtol=1e-3, atol=2e-5), name
        moved += bool(expected.abs().max() > 1e-3)
    assert moved > 20
    for name in set(after) - set(gradients[0]):  # batch normalisation is each part's own, and the first's is saved
        assert torch.allclose(after[name].double(), statistics[0][name].double(), rtol=1e-4, atol=1e-6), name
    if not options:
        assert any(not torch.allclose(value, statistics[1][name]) for name, value in statistics[0].items() if "running_mean" in name)


def test_synchronised_batch_normalisation_is_the_configs_choice(data, tmp_path):
    """Over pictures of one size its means are those of one process with the whole batch."""
    means = []
    for processes, norm in ((1, "BN"), (2, "naiveSyncBN"), (2, "BN")):
        options = {**PLAIN, "SOLVER.IMS_PER_BATCH": 4, "MODEL.RESNETS.NORM": norm}
        launch(train, processes, "cpu", *data, tmp_path / f"{norm}{processes}", detector(options=options), steps(1), 1)
        state = torch.load(tmp_path / f"{norm}{processes}/model.pth", weights_only=True)["model"]
        means.append(torch.cat([value for name, value in state.items() if "running_mean" in name]))
        assert f"NORM: {norm}\n" in (tmp_path / f"{norm}{processes}/config.yaml").read_text()
    assert torch.allclose(means[0], means[1], rtol=1e-3, atol=1e-5)
    assert not torch.allclose(means[0], means[2], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "device", "weight", "message"),
    [
        ("SyncBN", "cpu", 1.0, "SyncBN needs GPUs"),
        ("SyncBN", "cuda", 0.5, r"model_labels\.weight"),
        ("naiveSyncBN", "cpu", 0.5, r"model_labels"),
    ],
)
def test_batch_normalisation_that_several_processes_cannot_share(norm, device, weight, message):
    model = build_model(build_config(detector(options={"MODEL.RESNETS.NORM": norm}), 2))
    with pytest.raises(UserError, match=message):
        check_norms(model, device, ModelLabels(weight=weight))
    check_norms(build_model(build_config(detector(), 2)), "cpu", ModelLabels(weight=0.5))


def test_what_the_processes_agree_on(data):
    before = dict(os.environ)
    alone = launch(agreed, 1, "cpu", data, detector(options=BATCH))
    shared = launch(agreed, 2, "cpu", data, detector(options=BATCH))
    (whole,), (left, right) = alone.pop("places"), shared.pop("places")
    assert [len(part) for part in whole] == [4] * 6
    assert [a + b for a, b in zip(left, right, strict=True)] == whole  # the order of the images is one process's
    assert [len(part) for part in left] == [2] * 6
    assert (alone["mean"], alone["first"], alone["backend"]) == ([1.0, 0.0], ["of 0"], None)
    threads = max(1, torch.get_num_threads() // 2)
    assert shared == {
        "mean": [1.0, 2.0], "first": ["of 0"] * 2, "threads": [threads] * 2, "backend": "gloo", "gpus": [False] * 2,
    }  # fmt: skip
    assert dict(os.environ) == before


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
    """Its AP is that of the weights and statistics that are saved."""
    settings = steps(40, early_stopping=EarlyStopping(every=20))
    options = {"SOLVER.IMS_PER_BATCH": 4}
    numbers, curve = launch(train, 2, "cpu", *data, tmp_path / "model", detector(options=options), settings, 1, None, data[0])
    assert numbers["evaluations"] == 2
    assert max(row["mask_AP"] for row in curve if row["mask_AP"] is not None) == numbers["validation_mask_AP"]
    rows = predicted(tmp_path / "model", *data, 0.05, 8, most=100)
    assert numbers["validation_mask_AP"] == pytest.approx(average_precision(data[0], rows)["mask"]["AP"], abs=1e-6)
    assert numbers["validation_mask_AP"] > 0.005


# what goes wrong


def test_a_batch_that_cannot_be_shared(data, tmp_path):
    with pytest.raises(UserError, match=r"^2 processes \(detector\.processes\) cannot share SOLVER\.IMS_PER_BATCH 3 equally$"):
        launch(train, 2, "cpu", *data, tmp_path, detector(options={"SOLVER.IMS_PER_BATCH": 3}), steps(1), 1)


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"detector\.processes: 2, but torch sees 1 GPU"):
        launch(agreed, 2, "cuda")


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
signal.signal(signal.SIGINT, signal.{sigint})
sys.path[:0] = [{root!r} + "/src", {root!r} + "/tests"]
from tiny_detector import detector
from vlm_itl.core.errors import UserError
from vlm_itl.settings import Training
from vlm_itl.detectors.mask_rcnn.processes import launch
from vlm_itl.detectors.mask_rcnn.training import train
folder, work = Path(sys.argv[1]), Path(sys.argv[2])
labels = json.loads((folder / "labels.json").read_text())
settings = Training(schedule="fixed_steps", steps=20, learning_rate=0.002)
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
        [sys.executable, "-c", SCRIPT.format(root=str(ROOT), sigint="SIG_IGN"), str(data[1]), str(tmp_path / "model")],
        start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "VLM_ITL_CHECKPOINT_SECONDS": "0"},
    )  # fmt: skip
    end = time.monotonic() + 300
    while not list(scratch.glob("training/*/checkpoint.pth")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert (tmp_path / "model/model.pth").exists()


def test_ctrl_c_in_the_first_alone_ends_all(data, tmp_path, scratch):
    """As `repro` sends it to a stage, not to the terminal's whole group."""
    (data[1] / "labels.json").write_text(json.dumps(data[0]))
    words = [sys.executable, "-c", SCRIPT.format(root=str(ROOT), sigint="default_int_handler"), str(data[1]), str(tmp_path / "model")]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "VLM_ITL_CHECKPOINT_SECONDS": "0"}
    )
    end = time.monotonic() + 300
    while not list(scratch.glob("training/*/checkpoint.pth")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.01)
    both = children(process.pid)
    assert len(both) == 2
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == -signal.SIGINT, output
    assert not any(alive(pid) for pid in both)
    assert not (tmp_path / "model").exists()


def test_killed_ends_all_and_goes_on_to_the_same_bytes(data, tmp_path, scratch):
    (data[1] / "labels.json").write_text(json.dumps(data[0]))

    def start(name: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", SCRIPT.format(root=str(ROOT), sigint="SIG_IGN"), str(data[1]), str(tmp_path / name)]
        return subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "VLM_ITL_CHECKPOINT_SECONDS": "0"}
        )

    def saved() -> int:
        found = list(scratch.glob("training/*/checkpoint.pth"))
        return torch.load(found[0], weights_only=True)["step"] if found else 0

    assert start("unbroken").wait(300) == 0
    for step, victim in ((3, "child"), (8, "parent")):
        process = start("broken")
        end = time.monotonic() + 300
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
    end = time.monotonic() + 300
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
    result = launch(lambda: [comm.get_rank(), comm.get_world_size(), mean(torch.ones(1) * comm.get_rank()).item()], 1, "cpu")
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
    assert json.loads((tmp_path / "0.json").read_text()) == [0, 2, 0.5]
    assert json.loads((tmp_path / "1.json").read_text()) is None
