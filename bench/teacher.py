"""Seconds and peak memory of an image: the teacher (Grounding DINO and SAM 2) and the student (Mask R-CNN), in one run.

Each side runs in a process of its own, one image at a time and turn by turn, on the same pictures of 640 x 480, after one that does not
count; memory is the most that the process held (on a GPU, the most that torch held there), of which the libraries alone take some hundred
MiB. Processor seconds are those of all threads, which others on the machine inflate less. Both draw as many masks an image. Speed does not
depend on what weights say, so random ones will do:

  --teacher tiny    the tests' tiny models (tries the code; says nothing of any published model)
  --teacher small   the shapes of grounding-dino-tiny and sam2.1-hiera-tiny, random weights
  --teacher base    the shapes of grounding-dino-base and sam2.1-hiera-large, the defaults of `autolabels`, random weights
  --detector ID_OR_FOLDER --segmenter ID_OR_FOLDER    real ones (hub ids with --detector-revision, --segmenter-revision)

The student is configs/mask_rcnn_R_50_FPN.yaml, random, or with --student a model folder of the train stage.
Usage: python bench/teacher.py [--teacher small] [--images 3] [--masks 3] [--device cpu]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

CLASSES = ["stop sign", "bird", "zebra", "book"]
HEIGHT, WIDTH = 480, 640
# Swin-B of 384 pixels and Hiera-L, as their papers' code has them; whatever is not here is transformers' default, which is the small shape
SWIN_BASE = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 12, "image_size": 384}
HIERA_LARGE = {
    "hidden_size": 144, "num_attention_heads": 2, "blocks_per_stage": [2, 6, 36, 4], "embed_dim_per_stage": [144, 288, 576, 1152],
    "num_attention_heads_per_stage": [2, 4, 8, 16], "window_size_per_stage": [8, 4, 16, 8], "global_attention_blocks": [23, 33, 43],
}  # fmt: skip


def pictures(number: int) -> list[Any]:
    return [np.random.default_rng(k).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8) for k in range(number)]


def random_teacher(folder: Path, size: str) -> tuple[str, str]:
    """Folders of a detector and a segmenter of that size, random."""
    import tiny_autolabel
    import torch
    from transformers import (
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2ImageProcessor,
        Sam2Model,
        Sam2Processor,
        Sam2VisionConfig,
        SwinConfig,
    )

    detector, segmenter = folder / "detector", folder / "segmenter"
    if size == "tiny":
        return str(tiny_autolabel.grounding_dino(detector)), str(tiny_autolabel.sam2(segmenter))
    torch.manual_seed(0)
    grounding, sam = GroundingDinoConfig(), Sam2Config()
    if size == "base":
        grounding = GroundingDinoConfig(backbone_config=SwinConfig(**SWIN_BASE, out_indices=[2, 3, 4]))
        tower = Sam2HieraDetConfig(**HIERA_LARGE)
        sam = Sam2Config(
            vision_config=Sam2VisionConfig(backbone_config=tower, backbone_channel_list=HIERA_LARGE["embed_dim_per_stage"][::-1])
        )
    words = tiny_autolabel.bert_words()
    for path, model, processor in (
        (detector, GroundingDinoForObjectDetection(grounding), GroundingDinoProcessor(GroundingDinoImageProcessor(), words)),
        (segmenter, Sam2Model(sam), Sam2Processor(Sam2ImageProcessor())),
    ):
        tiny_autolabel.save(path, model, processor)
    return str(detector), str(segmenter)


def teacher(detector: str, segmenter: str, arguments: argparse.Namespace) -> tuple[Callable[[Any], int], str]:
    """(what draws a picture's masks and counts them, a description)"""
    from vlm_itl.settings import GroundedSam2
    from vlm_itl.teachers.grounded_sam2 import GroundedSam2Teacher

    settings = GroundedSam2(
        kind="grounded-sam2", detector=detector, segmenter=segmenter, detector_revision=arguments.detector_revision,
        segmenter_revision=arguments.segmenter_revision, box_threshold=0.0, text_threshold=0.0, nms_iou=1.0, max_detections=arguments.masks,
        device=arguments.device,
    )  # fmt: skip
    made = GroundedSam2Teacher(settings, CLASSES)
    parameters = [sum(p.numel() for p in model.parameters()) / 1e6 for _, model in (made.detector, made.segmenter)]
    text = f"{parameters[0]:.0f} + {parameters[1]:.0f} million parameters, {len(CLASSES)} classes"
    return lambda picture: len(made.find([picture])[0]), text


def student(folder: Path, arguments: argparse.Namespace) -> tuple[Callable[[Any], int], str]:
    """Likewise of Mask R-CNN, as Detectron2 resizes and predicts one picture."""
    import torch
    from detectron2.data.detection_utils import build_augmentation
    from detectron2.data.transforms import AugInput, AugmentationList
    from detectron2.modeling import build_model
    from detectron2.modeling.backbone.resnet import BottleneckBlock

    from vlm_itl.detectors.mask_rcnn.config import build_config
    from vlm_itl.detectors.mask_rcnn.prediction import Predictor
    from vlm_itl.detectors.mask_rcnn.training import save
    from vlm_itl.settings import Detector

    path = arguments.student
    if path is None:
        torch.manual_seed(1)  # not the predictor's own seed: it takes weights that change nothing for another model's
        # `imagenet` keeps frozen batch normalisation, which a trained detector has; no weights are loaded
        cfg = build_config(Detector(config=str(ROOT / "configs/mask_rcnn_R_50_FPN.yaml"), init="imagenet", device="cpu"), len(CLASSES))
        model = build_model(cfg)
        for module in model.modules():  # random weights without normalisation would let activations grow until no box is left
            if isinstance(module, BottleneckBlock):
                module.conv3.norm.weight.zero_()
        path = folder / "student"
        save(model, cfg, path)
    predictor = Predictor(path, arguments.device, arguments.masks)
    predictor.model.eval()
    predictor.model.roi_heads.box_predictor.test_score_thresh = 0.0
    resize = AugmentationList(build_augmentation(predictor.cfg, False))

    def draw(picture: Any) -> int:
        inputs = AugInput(np.ascontiguousarray(picture[:, :, ::-1]))
        resize(inputs)
        tensor = torch.as_tensor(np.ascontiguousarray(inputs.image.transpose(2, 0, 1)))
        with torch.no_grad():
            [outputs] = predictor.model([{"image": tensor, "height": HEIGHT, "width": WIDTH}])
        return len(outputs["instances"].to("cpu").pred_masks)

    parameters = sum(p.numel() for p in predictor.model.parameters()) / 1e6
    return draw, f"{parameters:.0f} million parameters, {predictor.cfg.INPUT.MIN_SIZE_TEST} pixels"


def serve(draw: Callable[[Any], int], text: str, number: int) -> None:
    """Draw the next picture at each line of the standard input, and say how long it took; at last the most memory, in MiB."""
    import torch

    say = lambda **facts: print(json.dumps(facts), file=ANSWERS, flush=True)  # noqa: E731
    for picture, _ in zip(pictures(number), sys.stdin):
        start, busy = time.perf_counter(), time.process_time()
        masks = draw(picture)  # they are on the CPU when it returns
        say(seconds=time.perf_counter() - start, processor=time.process_time() - busy, masks=masks)
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    used = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0
    device = torch.cuda.get_device_name() if used else f"CPU, {torch.get_num_threads()} thread(s)"
    say(MiB=used or host, text=f"{text}; {device}")


ANSWERS = os.fdopen(os.dup(1), "w")  # what libraries print goes elsewhere


class Side:
    """A process that draws a picture when asked."""

    def __init__(self, name: str, folder: str) -> None:
        self.name = name
        words = [sys.executable, __file__, *sys.argv[1:], "--side", name, "--folder", folder]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, "VLM_ITL_SCRATCH": folder},
        )
        self.seconds: list[float] = []
        self.processor: list[float] = []
        self.masks: list[int] = []

    def draw(self, counts: bool = True) -> None:
        self.ask("next\n")
        answer = self.answer()
        if counts:
            self.seconds.append(answer["seconds"])
            self.processor.append(answer["processor"])
            self.masks.append(answer["masks"])

    def ask(self, line: str) -> None:
        try:
            print(line, end="", file=self.process.stdin, flush=True)
        except BrokenPipeError:
            self.fail()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.fail()
        return json.loads(line)

    def end(self) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.close()
        return self.answer()

    def fail(self) -> None:
        self.process.wait()
        self.errors.seek(0)
        sys.exit(f"error: {self.name}: {(self.errors.read().strip() or 'killed').splitlines()[-1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", choices=("tiny", "small", "base"), default="tiny")
    for name in ("detector", "detector-revision", "segmenter", "segmenter-revision"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--student", type=Path)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--masks", type=int, default=3, help="an image; about what COCO's images of the four classes show")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--side", choices=("make", "teacher", "student"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if bool(arguments.detector) != bool(arguments.segmenter):
        sys.exit("error: --detector and --segmenter go together")
    if arguments.side == "make":
        random_teacher(arguments.folder, arguments.teacher)
        return
    if arguments.side:
        os.dup2(2, 1)
        own = (arguments.detector or str(arguments.folder / "detector"), arguments.segmenter or str(arguments.folder / "segmenter"))
        draw, text = student(arguments.folder, arguments) if arguments.side == "student" else teacher(*own, arguments)
        serve(draw, text, arguments.images + 1)
        return
    real = bool(arguments.detector)
    drawn_by, learned_by = (
        "given models" if real else f"{arguments.teacher}, random weights",
        arguments.student or "R-50-FPN, random weights",
    )
    print(
        f"{arguments.images} pictures of {WIDTH} x {HEIGHT}, {arguments.masks} masks each; teacher: {drawn_by}; student: {learned_by}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        if not real:
            subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--side", "make", "--folder", folder], stderr=subprocess.DEVNULL, check=True
            )
        sides = [Side("teacher", folder), Side("student", folder)]
        for side in sides:
            side.draw(counts=False)
        for _ in range(arguments.images):
            for side in sides:
                side.draw()
        last = [side.end() for side in sides]
    for side, facts in zip(sides, last):
        if set(side.masks) != {arguments.masks}:
            print(f"CAUTION: {side.name} drew {side.masks} masks, not {arguments.masks} an image")
        middle, each, busy = statistics.median(side.seconds), listed(side.seconds, 2), listed(side.processor, 2)
        print(f"{side.name:8} {middle:8.2f} s an image (median of {each}; processor seconds: {busy})  {facts['MiB']:8,.0f} MiB at the peak")
        print(f"{'':8} {facts['text']}")
    ratios = [slow / quick for slow, quick in zip(*(side.seconds for side in sides))]
    work = statistics.median(sides[0].processor) / statistics.median(sides[1].processor)
    memory = last[0]["MiB"] / last[1]["MiB"]
    print(f"ratio    {statistics.median(ratios):8.1f} x the time (median of {listed(ratios, 1)}), {work:.1f} x the processor seconds, "
          f"{memory:.1f} x the memory")  # fmt: skip


def listed(values: list[float], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


if __name__ == "__main__":
    main()
