"""More labels, higher AP, from scratch on the default's drawn data: the curve that the first study did not get. Slow: `make test-long`."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

import pytest
from conftest import ROOT
from tiny_detector import predicted

from vlm_itl.core.coco import subset
from vlm_itl.settings import Training, load

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not os.environ.get("VLM_ITL_LONG_TESTS"), reason="18 trainings, about 25 minutes: make test-long"),
]
SEEDS = (1, 2, 3)
FRACTIONS = (0.2, 0.6, 1.0)
SCHEDULES = {
    "fixed_steps": Training(schedule="fixed_steps", steps=500, learning_rate=0.002),
    "adaptive": Training(schedule="adaptive", steps=240, images=72, learning_rate=0.002),  # 240, 416 and 537 steps
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[Path, dict, dict]:
    """(images, training images that are not validation, test images) of the shipped settings."""
    from vlm_itl.core.files import read_json
    from vlm_itl.data.selection import select
    from vlm_itl.data.splitting import split
    from vlm_itl.data.synthetic.dataset import write_dataset

    settings = load(ROOT / "params.yaml")
    folder = tmp_path_factory.mktemp("data")
    s = settings.data.synthetic
    write_dataset(folder, s.train_images, s.test_images, s.long_side, settings.data.seed)
    parts = [select(read_json(folder / f"{part}.json"), settings.select, name) for part, name in (("train", "training"), ("test", "test"))]
    initial, pool, _ = split(parts[0], settings.split)
    return folder / "images", subset(parts[0], initial | pool), parts[1]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_more_labels_are_better(schedule, data, tmp_path, monkeypatch):
    from vlm_itl.data.splitting import split
    from vlm_itl.detectors.mask_rcnn.training import train
    from vlm_itl.metrics.detection import average_precision

    monkeypatch.setenv("VLM_ITL_SCRATCH", str(tmp_path / "scratch"))
    settings = load(ROOT / "params.yaml")
    detector = settings.detector.model_copy(update={"config": str(ROOT / settings.detector.config), "init": "scratch"})
    images, everything, test = data
    means = []
    for fraction in FRACTIONS:
        aps = []
        for seed in SEEDS:
            # another seed is another choice of labels, too
            chosen, _, _ = split(
                everything, settings.split.model_copy(update={"validation_fraction": 0.0, "initial_fraction": fraction, "seed": seed})
            )
            model = tmp_path / f"{fraction}-{seed}"
            numbers, _ = train(subset(everything, chosen), images, model, detector, SCHEDULES[schedule], seed)
            rows = predicted(model, {**test, "annotations": []}, images, 0.05, 8, most=100)
            aps.append(average_precision(test, rows)["mask"]["AP"])
        means.append(statistics.mean(aps))
        said = ", ".join(f"{a:.3f}" for a in aps)
        print(f"\n{schedule}, {fraction:.0%} of the labels, {numbers['steps']} steps: mask AP {said}, mean {means[-1]:.3f}", flush=True)
    assert means[0] < means[1] < means[2]
