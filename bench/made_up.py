"""Made-up matches with a known model behind them, for benchmarks of statistics. Not a benchmark.

An image has a difficulty that all models share; a model has a skill. An instance is found with an IoU that falls with the difficulty and
rises with the skill, at a score that follows the IoU; beside that come false positives with lower scores.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from vlm_itl.metrics.matches import Matches

THRESHOLDS = np.linspace(0.5, 0.95, 10)


def world(images: int, classes: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(classes, images) instances, and (images,) difficulties: what all models meet."""
    here = random.random((classes, images)) < 1.4 / classes  # some images show nothing, most one or two classes
    return np.where(here, random.geometric(0.5, (classes, images)), 0).astype(np.int32), random.normal(0, 0.12, images)


def model(instances: np.ndarray, difficulty: np.ndarray, skill: float, random: np.random.Generator) -> Matches:
    """A model of that skill (mean IoU of what it finds; .75 is good) on those images."""
    classes, images = instances.shape
    category, image = np.nonzero(instances)
    times = instances[category, image]
    category, image = np.repeat(category, times), np.repeat(image, times)
    iou = skill - difficulty[image] + random.normal(0, 0.12, len(image))
    score = 1 / (1 + np.exp(-8 * (iou - 0.6) - random.normal(0, 1, len(iou))))
    false = random.poisson(0.5, (classes, images))
    false_category, false_image = np.nonzero(false)
    times = false[false_category, false_image]
    false_category, false_image = np.repeat(false_category, times), np.repeat(false_image, times)
    false_score = 1 / (1 + np.exp(1.2 - random.normal(0, 1, len(false_image))))
    category, image = np.concatenate([category, false_category]), np.concatenate([image, false_image])
    score = np.concatenate([score, false_score])
    found = np.concatenate([iou, np.zeros(len(false_image))]) >= THRESHOLDS[:, None]
    order = np.lexsort((-score, image, category))
    return Matches(
        THRESHOLDS, np.array([f"class {k}" for k in range(classes)]), np.arange(images), instances,
        image[order].astype(np.int32), category[order].astype(np.int32), score[order], found[:, order], np.zeros_like(found),
    )  # fmt: skip
