"""Teachers on tiny random models: the code path of the published ones, against passes written out by hand."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import PIL.Image
import pytest
import tiny_autolabel
import torch
from conftest import ROOT, instance
from tiny_detector import pictures
from transformers import (
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
    GroundingDinoForObjectDetection,
    Sam2Model,
    Sam2Processor,
    Sam3Model,
    Sam3Processor,
)

from vlm_itl.core.coco import decode, encode
from vlm_itl.core.errors import UserError
from vlm_itl.core.pictures import read_picture
from vlm_itl.registry import TEACHERS
from vlm_itl.settings import GroundedSam2, Sam3
from vlm_itl.teachers.grounded_sam2 import GroundedSam2Teacher, sentence
from vlm_itl.teachers.labelling import to_results
from vlm_itl.teachers.pseudo_labels import FoundInstance, suppress

CAPTIONS = {"bird": "a Red bird", "book": "book."}


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("VLM_ITL_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    makers = {**tiny_autolabel.DETECTORS, "sam2": tiny_autolabel.sam2, "sam3": tiny_autolabel.sam3}
    return {name: make(folder / name) for name, make in makers.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[dict, Path]:
    """(unlabelled images, their folder)"""
    labels, folder = pictures(tmp_path_factory.mktemp("pictures"))
    return {**labels, "annotations": []}, folder


def settings(models, family: str = "grounding_dino", **more) -> GroundedSam2:
    paths = {"detector": str(models[family]), "segmenter": str(models["sam2"])}
    return GroundedSam2(**{"kind": "grounded-sam2", **paths, "captions": CAPTIONS, "device": "cpu", "batch_size": 1, **more})


def label(data, images, s) -> tuple[list[dict], dict]:
    """As the stage does."""
    return resolve_name(TEACHERS[s.kind]).label(s, data, images, Path())


def overlap(a, b) -> float:
    """IoU of two boxes [x0, y0, x1, y1]."""
    w, h = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
    both = max(w, 0) * max(h, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def survivors(boxes, scores, iou, most) -> list[int]:
    """Greedy suppression, written out."""
    kept: list[int] = []
    for k in sorted(range(len(scores)), key=lambda k: -scores[k]):
        if all(overlap(boxes[k], boxes[other]) <= iou for other in kept):
            kept.append(k)
    return kept[:most]


@torch.no_grad()
def boxes_by_hand(folder: Path, picture: np.ndarray, s: GroundedSam2) -> list[tuple[list[float], float, int]]:
    """(box, score, class) of one picture, before suppression: one plain forward pass a class."""
    processor, model = AutoProcessor.from_pretrained(folder), AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    height, width = picture.shape[:2]
    result = []
    for index, caption in enumerate(("a red bird.", "book.")):
        inputs = processor(images=PIL.Image.fromarray(picture), text=caption, return_tensors="pt")
        outputs = model(**inputs)
        p = outputs.logits[0].sigmoid()
        words = [k for k, token in enumerate(inputs["input_ids"][0].tolist()) if token >= 1040]  # neither [CLS] nor [SEP] nor a full stop
        for row, (x, y, w, h) in zip(p, outputs.pred_boxes[0].tolist()):
            if row.max() > s.box_threshold and row[words].max() > s.text_threshold:
                corners = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
                limits = [width, height, width, height]
                result.append(([min(max(c, 0), m) for c, m in zip(corners, limits)], float(row.max()), index))
    return result


@torch.no_grad()
def masks_by_hand(folder: Path, picture: np.ndarray, boxes: list[list[float]]) -> tuple[np.ndarray, list[float]]:
    """One plain pass of SAM 2 with all boxes of a picture."""
    processor, model = Sam2Processor.from_pretrained(folder), Sam2Model.from_pretrained(folder).eval()
    inputs = processor(images=PIL.Image.fromarray(picture), input_boxes=[boxes], return_tensors="pt")
    outputs = model(pixel_values=inputs["pixel_values"], input_boxes=inputs["input_boxes"], multimask_output=False)
    large = torch.nn.functional.interpolate(outputs.pred_masks[0], picture.shape[:2], mode="bilinear")
    return (large[:, 0] > 0).numpy(), outputs.iou_scores[0, :, 0].tolist()


@pytest.mark.parametrize(("detector", "thresholds"), [("grounding_dino", (0.9999, 0.9)), ("mm_grounding_dino", (0.05, 0.05))])
def test_grounded_sam2_is_what_plain_passes_give(models, data, detector, thresholds):
    s = settings(models, detector, box_threshold=thresholds[0], text_threshold=thresholds[1], nms_iou=0.3, max_detections=5)
    rows, identity = label(*data, s)
    counts = set()
    suppressed = 0
    for image in data[0]["images"]:
        picture = read_picture(data[1] / image["file_name"])
        found = boxes_by_hand(models[detector], picture, s)
        kept = survivors([f[0] for f in found], [f[1] for f in found], s.nms_iou, s.max_detections)
        suppressed += len(found) - len(kept)
        mine = [row for row in rows if row["image_id"] == image["id"]]
        counts.add(len(mine))
        if not kept:
            assert mine == []
            continue
        masks, fits = masks_by_hand(models["sam2"], picture, [found[k][0] for k in kept])
        filled = [(k, mask, fit) for k, mask, fit in zip(kept, masks, fits) if mask.any()]
        assert [row["category_id"] for row in mine] == [(16, 84)[found[k][2]] for k, _, _ in filled]
        for row, (k, mask, fit) in zip(mine, filled, strict=True):
            assert row["score"] == pytest.approx(found[k][1], abs=2e-6)
            assert row["mask_score"] == pytest.approx(fit, abs=1e-5)
            assert (decode(row["segmentation"]) != mask).mean() < 0.002
            assert row["area"] == decode(row["segmentation"]).sum()
    assert suppressed > 0
    assert len(counts) > 1  # else nothing here is about unequal numbers
    assert identity["detector"] == detector
    assert len(identity["detector_revision"]) == len(identity["segmenter_revision"]) == 64


def test_batches_with_unequal_numbers_of_boxes_are_the_pictures_one_by_one(models, data):
    """Some pictures of a batch without any box, too. Other shapes in a batch change what is padded, and so last digits of the boxes."""
    teacher = GroundedSam2Teacher(settings(models), ["bird", "book"])
    some = [read_picture(data[1] / f"{k}.png") for k in (1, 2, 3, 4)]
    boxes = [torch.tensor(b, dtype=torch.float32).reshape(-1, 4) for b in (
        [[2, 2, 30, 30], [5, 8, 60, 40], [0, 0, 63, 47]], [], [[10, 10, 20, 20]], [[1, 1, 40, 60], [4, 5, 6, 7]],
    )]  # fmt: skip
    together = teacher.masks(some, boxes)
    assert [len(masks) for masks, _ in together] == [3, 0, 1, 2]
    for picture, mine, (masks, fits) in zip(some, boxes, together, strict=True):
        assert masks.shape[1:] == picture.shape[:2]
        [(alone, alone_fits)] = teacher.masks([picture], [mine])
        assert alone.shape == masks.shape
        assert (alone != masks).sum() <= 0.002 * masks.numel()
        assert fits == pytest.approx(alone_fits, abs=1e-5)
    assert [len(masks) for masks, _ in teacher.masks(some[:2], [boxes[1], boxes[1]])] == [0, 0]

    rows, _ = label(*data, settings(models, batch_size=4, max_detections=3))
    single, _ = label(*data, settings(models, batch_size=1, max_detections=3))
    assert len(rows) == len(single) > 0
    assert [row["image_id"] for row in rows] == [row["image_id"] for row in single]
    assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in single], abs=1e-3)


def test_pictures_without_a_box_and_pools_without_a_picture(models, data):
    assert label(*data, settings(models, box_threshold=1.0, batch_size=4))[0] == []
    assert label({**data[0], "images": []}, data[1], settings(models))[0] == []
    assert label(*data, Sam3(kind="sam3", model=str(models["sam3"]), score_threshold=1.0, device="cpu"))[0] == []


def test_only_the_first_named_class_keeps_a_box_that_two_have(models, data):
    """Asked for the same thing under two names, the teacher finds everything twice."""
    both = settings(models, captions={"bird": "book", "book": "book"}, max_detections=30, nms_iou=0.99)
    rows, _ = label({**data[0], "images": data[0]["images"][:1]}, data[1], both)
    assert {row["category_id"] for row in rows} == {16}
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 10, 4]], dtype=torch.float32)
    scores = torch.tensor([0.5, 0.9, 0.3, 0.8])
    assert suppress(boxes, scores, 0.8, 10).tolist() == [1, 3, 2]  # IoU 0.9 with a likelier one; 4/9 is less
    assert suppress(boxes, scores, 0.8, 2).tolist() == [1, 3]


def test_captions_are_as_the_detector_knows_them(models):
    assert [sentence(c) for c in ("Stop Sign", " a book. ", "a zebra.")] == ["stop sign.", "a book.", "a zebra."]
    teacher = GroundedSam2Teacher(settings(models), ["bird"])
    assert [teacher.is_word(t) for t in ("bird", "red bird [SEP]", "[SEP]", ".", "", "[CLS] . [SEP]")] == [True, True] + [False] * 4


@torch.no_grad()
def test_sam3_is_what_plain_passes_give(models, data):
    processor, model = Sam3Processor.from_pretrained(models["sam3"]), Sam3Model.from_pretrained(models["sam3"]).eval()
    expected = []
    scores = []
    for image in data[0]["images"]:
        picture = read_picture(data[1] / image["file_name"])
        height, width = picture.shape[:2]
        found = []
        for category, caption in ((16, "a Red bird"), (84, "book.")):
            inputs = processor(images=PIL.Image.fromarray(picture), text=caption, return_tensors="pt")
            outputs = model(pixel_values=inputs["pixel_values"], input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
            p = (outputs.pred_logits[0].sigmoid() * outputs.presence_logits[0].sigmoid()).tolist()
            small = outputs.pred_masks[0].sigmoid()
            large = torch.nn.functional.interpolate(small[None], (height, width), mode="bilinear")[0] > 0.5
            boxes = (outputs.pred_boxes[0] * torch.tensor([width, height, width, height])).tolist()
            found += list(zip(p, boxes, large.numpy(), [category] * len(p)))
        scores += [f[0] for f in found]
        expected.append((image["id"], found))
    threshold = float(np.quantile(scores, 0.8))
    s = Sam3(kind="sam3", model=str(models["sam3"]), captions=CAPTIONS, device="cpu", batch_size=3, score_threshold=threshold, nms_iou=0.9)
    rows, identity = label(*data, s)
    assert identity["model"] == "sam3"
    total = 0
    for image_id, found in expected:
        found = [f for f in found if f[0] > threshold]
        kept = [found[k] for k in survivors([f[1] for f in found], [f[0] for f in found], 0.9, 100) if found[k][2].any()]
        mine = [row for row in rows if row["image_id"] == image_id]
        assert [row["category_id"] for row in mine] == [f[3] for f in kept]
        for row, (score, _, mask, _) in zip(mine, kept, strict=True):
            assert row["score"] == pytest.approx(score, abs=1e-5)
            assert (decode(row["segmentation"]) != mask).mean() < 0.002
        total += len(mine)
    assert total > 5


def test_half_precision_gives_nearly_the_same(models, data):
    """On a GPU it is the default; the code that surrounds it (post-processing in float32) is the same here."""
    image = {**data[0], "images": data[0]["images"][:1]}
    (full, _), (half, _) = (
        label(image, data[1], settings(models, dtype=d, nms_iou=1.0, max_detections=30)) for d in ("float32", "bfloat16")
    )
    assert full != half
    assert np.mean([r["score"] for r in full]) == pytest.approx(np.mean([r["score"] for r in half]), abs=0.01)
    s = Sam3(kind="sam3", model=str(models["sam3"]), device="cpu", score_threshold=0.1, dtype="bfloat16")
    assert label(image, data[1], s)[0]


def test_published_folders_hold_the_video_model(models, data, tmp_path):
    """facebook/sam2.1-hiera-large says model_type sam2_video; its image part loads, and segments alike."""
    from transformers import Sam2Config, Sam2VideoConfig, Sam2VideoModel, Sam2VideoProcessor, Sam2VideoVideoProcessor

    image_part = Sam2Model.from_pretrained(models["sam2"])
    parts = Sam2Config.from_pretrained(models["sam2"])
    config = Sam2VideoConfig(
        vision_config=parts.vision_config, prompt_encoder_config=parts.prompt_encoder_config.to_dict(),
        mask_decoder_config=parts.mask_decoder_config.to_dict(), image_size=64, memory_attention_hidden_size=32,
        memory_attention_feed_forward_hidden_size=32, memory_attention_num_layers=1, memory_encoder_hidden_size=32,
        memory_encoder_output_channels=16, mask_downsampler_embed_dim=32, memory_fuser_embed_dim=32, memory_fuser_intermediate_dim=32,
        memory_attention_rope_feat_sizes=[4, 4],
    )  # fmt: skip
    video = Sam2VideoModel(config)
    missing, _ = video.load_state_dict(image_part.state_dict(), strict=False)
    assert len(missing) > 20  # the memory, which stays random
    processor = Sam2Processor.from_pretrained(models["sam2"])
    tiny_autolabel.save(tmp_path / "video", video, Sam2VideoProcessor(processor.image_processor, Sam2VideoVideoProcessor()))
    image = {**data[0], "images": data[0]["images"][:2]}
    assert '"model_type": "sam2_video"' in (tmp_path / "video" / "config.json").read_text()
    rows = [label(image, data[1], settings(models | {"sam2": path}))[0] for path in (models["sam2"], tmp_path / "video")]
    assert rows[0] == rows[1]


def test_published_weights_of_sam3_hold_the_video_model(models, data, tmp_path):
    """facebook/sam3 says model_type sam3_video, and its image part is called detector_model there."""
    import json

    from safetensors.torch import load_file, save_file

    shutil.copytree(models["sam3"], tmp_path / "video")
    image_part = json.loads((models["sam3"] / "config.json").read_text())
    (tmp_path / "video" / "config.json").write_text(json.dumps({"model_type": "sam3_video", "detector_config": image_part}))
    weights = {f"detector_model.{name}": value for name, value in load_file(models["sam3"] / "model.safetensors").items()}
    save_file(weights | {"tracker_neck.x": torch.zeros(3)}, tmp_path / "video" / "model.safetensors", metadata={"format": "pt"})
    image = {**data[0], "images": data[0]["images"][:2]}
    rows = [
        label(image, data[1], Sam3(kind="sam3", model=str(path), score_threshold=0.1, device="cpu"))[0]
        for path in (models["sam3"], tmp_path / "video")
    ]
    assert rows[0] == rows[1] != []


CHILD = """
import json, signal, sys
from pathlib import Path
from vlm_itl.teachers.grounded_sam2 import GroundedSam2Teacher
from vlm_itl.settings import GroundedSam2

find, asked = GroundedSam2Teacher.find, []

def find_two_batches(*words):
    asked.append(words)
    if len(asked) > 2:
        signal.pause()  # until it is killed
    return find(*words)

GroundedSam2Teacher.find = find_two_batches
GroundedSam2Teacher.label(GroundedSam2.model_validate_json(sys.argv[3]), json.loads(sys.argv[1]), Path(sys.argv[2]), Path())
"""


def test_killed_it_goes_on_after_the_last_whole_batch(models, data, scratch, monkeypatch):
    import json

    s = settings(models, batch_size=2, max_detections=3)
    whole, _ = label(*data, s)
    assert not list(scratch.glob("autolabels/*"))
    words = [sys.executable, "-c", CHILD, json.dumps(data[0]), str(data[1]), s.model_dump_json()]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # another number of threads is another machine
    child = subprocess.Popen(words, cwd=ROOT, env={**os.environ, **threads, "PYTHONPATH": str(ROOT / "src")}, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    lines = lambda: [line for p in scratch.glob("autolabels/*/batches.jsonl") for line in p.read_text().splitlines()]  # noqa: E731
    while len(lines()) < 2:
        assert child.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    [file] = scratch.glob("autolabels/*/batches.jsonl")
    done = sum(len(json.loads(line.partition("\t")[0])) for line in lines())
    with file.open("a") as stream:
        stream.write('[[1, [{"image_')  # cut short
    asked: list[int] = []
    find = GroundedSam2Teacher.find
    monkeypatch.setattr(GroundedSam2Teacher, "find", lambda self, batch: (asked.append(len(batch)), find(self, batch))[1])
    assert label(*data, s)[0] == whole
    assert sum(asked) == len(data[0]["images"]) - done < len(data[0]["images"])
    assert not list(scratch.glob("autolabels/*"))


def test_what_was_found_with_other_settings_or_pictures_is_not_taken_up(models, data, scratch, monkeypatch, tmp_path):
    """Each attempt stops at its second batch; were its key that of another, it would find that one's first batch."""
    folder = tmp_path / "changed"
    shutil.copytree(data[1], folder)
    PIL.Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(folder / "1.png")
    find = GroundedSam2Teacher.find
    calls: list[int] = []

    def second_fails(self, batch):
        calls.append(len(batch))
        if len(calls) % 2 == 0:
            raise KeyboardInterrupt
        return find(self, batch)

    monkeypatch.setattr(GroundedSam2Teacher, "find", second_fails)
    for pictures_of, changed in ((data[1], {}), (data[1], {"box_threshold": 0.4}), (data[1], {"captions": {}}), (folder, {})):
        with pytest.raises(KeyboardInterrupt):
            label(data[0], pictures_of, settings(models, **changed))
    assert len(list(scratch.glob("autolabels/*"))) == 4
    assert {len(p.read_text().splitlines()) for p in scratch.glob("autolabels/*/batches.jsonl")} == {1}


def test_a_batch_too_large_for_the_memory_is_halved(models, data, monkeypatch):
    """Where the memory ends: in the detector's pass, of one class a time, and once more in the segmenter's."""
    detect, embed, sizes = GroundingDinoForObjectDetection.forward, Sam2Model.get_image_embeddings, []

    def short_of_memory(self, pixel_values, **more):
        sizes.append(len(pixel_values))
        if len(pixel_values) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return detect(self, pixel_values, **more)

    def shorter(self, pixel_values, **more):
        if len(pixel_values) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return embed(self, pixel_values, **more)

    monkeypatch.setattr(GroundingDinoForObjectDetection, "forward", short_of_memory)
    monkeypatch.setattr(Sam2Model, "get_image_embeddings", shorter)
    rows, _ = label(*data, settings(models, batch_size=8, max_detections=3))
    classes = len(data[0]["categories"])
    assert sizes == [8] + classes * [4] + 5 * classes * [2] + classes * [1]
    assert {row["image_id"] for row in rows} == {image["id"] for image in data[0]["images"]}

    def no_memory(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(GroundingDinoForObjectDetection, "forward", no_memory)
    with pytest.raises(UserError, match="out of memory on a single image"):
        label(*data, settings(models, batch_size=2))


def test_what_is_said_of_a_model_that_cannot_be_had(models, data, tmp_path):
    def said(s) -> str:
        with pytest.raises(UserError) as error:
            label(*data, s)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "autolabels: detector: IDEA-Research/grounding-dino-base is no folder here" in said(GroundedSam2(kind="grounded-sam2"))
    pinned = settings(models, segmenter="facebook/sam2.1-hiera-large", segmenter_revision="0" * 40)
    message = said(pinned)
    for part in ("autolabels: segmenter", "https://huggingface.co/facebook/sam2.1-hiera-large", "hf download facebook/sam2.1", "folder"):
        assert part in message
    assert "gated" in said(Sam3(kind="sam3", revision="0" * 40))
    # another model's folder, which transformers would take with a warning and random weights
    assert "autolabels: segmenter" in said(settings(models, segmenter=str(models["grounding_dino"])))
    assert "autolabels: detector" in said(settings(models, detector=str(models["sam2"])))
    assert "autolabels: model" in said(Sam3(kind="sam3", model=str(models["sam2"]), device="cpu"))
    shutil.copytree(models["sam2"], tmp_path / "torn")
    weights = tmp_path / "torn" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    assert "cannot be loaded" in said(settings(models, segmenter=str(tmp_path / "torn")))
    if not torch.cuda.is_available():
        assert "torch sees no GPU" in said(settings(models, device="cuda"))


@pytest.mark.parametrize("part", ["grounding_dino", "sam2", "sam3"])
def test_no_numbers_are_not_taken_for_no_instances(models, data, tmp_path, part):
    from safetensors.torch import load_file, save_file

    shutil.copytree(models[part], tmp_path / "broken")
    weights = load_file(models[part] / "model.safetensors")
    save_file({name: value * float("nan") for name, value in weights.items()}, tmp_path / "broken" / "model.safetensors", {"format": "pt"})
    broken = str(tmp_path / "broken")
    s = {
        "grounding_dino": settings(models, detector=broken, box_threshold=0.1),
        "sam2": settings(models, segmenter=broken),
        "sam3": Sam3(kind="sam3", model=broken, device="cpu"),
    }[part]
    with pytest.raises(UserError, match=r"broken gives NaN; try dtype: float32"):
        label(*data, s)


def test_results_fall_by_score_and_leave_empty_masks_out():
    full, none = np.ones((4, 5), bool), np.zeros((4, 5), bool)
    rows = to_results(7, [FoundInstance(0, 0.25, full), FoundInstance(1, 0.5, none), FoundInstance(1, 0.75, full, 0.9)], [16, 84])
    assert rows == [
        {
            "image_id": 7,
            "category_id": 84,
            "segmentation": encode(full),
            "bbox": [0, 0, 5, 4],
            "area": 20,
            "score": 0.75,
            "mask_score": 0.9,
        },
        {"image_id": 7, "category_id": 16, "segmentation": encode(full), "bbox": [0, 0, 5, 4], "area": 20, "score": 0.25},
    ]


def test_quality_of_pseudo_labels_by_hand():
    from vlm_itl.metrics.pseudo_labels import quality

    truth = {
        "images": [{"id": k, "file_name": f"{k}.jpg", "height": 40, "width": 50} for k in (1, 2, 3, 4)],
        "categories": [{"id": 1, "name": "bird"}, {"id": 2, "name": "book"}],
        "annotations": [
            {**instance((0, 0, 10, 10), 1, 1), "id": 1}, {**instance((20, 0, 10, 10), 1, 2), "id": 2},
            {**instance((0, 20, 10, 10), 2, 3), "id": 3}, {**instance((20, 20, 20, 10), 1, 3, iscrowd=1), "id": 4},
        ],
    }  # fmt: skip
    rows = [
        instance((0, 0, 10, 10), 1, 1, score=0.9),  # right
        instance((0, 0, 10, 9), 1, 1, score=0.8),  # the same once more
        instance((20, 0, 10, 10), 2, 2, score=0.7),  # another class
        instance((0, 20, 10, 10), 2, 3, score=0.6),  # right
        instance((20, 20, 20, 5), 1, 3, score=0.5),  # on a crowd
    ]
    numbers = quality(rows, truth, 0.6)
    assert numbers["pseudo_labels"] == 5
    assert numbers["right"] == 0.5  # of four: the one on the crowd does not count
    assert numbers["found"] == pytest.approx(2 / 3, abs=1e-6)
    assert (numbers["images"], numbers["images_without"], numbers["images_right"]) == (4, 1, 0.25)  # the third image
    # of two birds one is found, first: precision 1 up to recall .5, that is at 51 of 101 recall points
    assert numbers["mask"]["per_class"]["bird"] == pytest.approx(51 / 101, abs=1e-6)
    assert numbers["mask"]["per_class"]["book"] == pytest.approx(0.5, abs=1e-6)  # the wrong book is likelier
    nothing = quality([], truth, 0.6)
    assert (nothing["mask"]["AP"], nothing["right"], nothing["found"], nothing["images_without"]) == (0.0, None, 0.0, 4)


def test_sheet_shows_each_class_and_gives_pairs_one_colour(tmp_path):
    from vlm_itl.judges.rendering import colour
    from vlm_itl.report.contact_sheet import WIDTH, choose, draw
    from vlm_itl.settings import Gallery

    images = [{"id": k, "file_name": f"{k}.png", "height": 40, "width": 50} for k in range(1, 8)]
    for image in images:
        PIL.Image.fromarray(np.full((40, 50, 3), 128, np.uint8)).save(tmp_path / image["file_name"])
    truth = {
        "images": images,
        "categories": [{"id": 1, "name": "bird"}, {"id": 2, "name": "book"}, {"id": 3, "name": "zebra"}],
        "annotations": [instance((2, 2, 20, 20), 1 + k % 2, k) for k in range(1, 6)]
        + [instance((25, 25, 12, 12), 1, 2), instance((25, 2, 10, 10), 1, 6, iscrowd=1)],
    }  # fmt: skip
    chosen = choose(truth, Gallery(per_group=2))
    assert [len(some) for some in chosen.values()] == [2, 2, 0]  # no zebra; a crowd region shows nothing
    assert {i["id"] for i in chosen["bird"]} <= {2, 4}
    assert {i["id"] for i in chosen["book"]} <= {1, 3, 5}
    assert choose({**truth, "images": images[::-1]}, Gallery(per_group=2)) == chosen
    assert [i["id"] for i in choose(truth, Gallery(per_group=3))["book"]][:2] == [i["id"] for i in chosen["book"]]

    one = {**truth, "images": images[1:2], "categories": truth["categories"][:1]}
    pixels = np.array(
        draw([instance((2, 2, 20, 20), 2, 2, score=0.9), instance((25, 25, 12, 12), 1, 2, score=0.8)], one, tmp_path, 0.6, Gallery())
    )
    assert pixels.shape[1] < 2 * WIDTH  # small pictures stay small
    left, right = pixels[:, :50], pixels[:, 52:102]
    edges = [{k for k in range(4) if (part == colour(k)).all(-1).any()} for part in (left, right)]
    assert edges == [{0, 1}, {1, 2}]  # the second belongs to the instance drawn second; the book is no bird
