"""Detectors: they learn from labels, and propose masks. A new kind is a class with the methods of `Detector`, and a line in
`vlm_itl.registry`."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from vlm_itl.core.coco import Coco
from vlm_itl.registry import DETECTORS

if TYPE_CHECKING:
    from vlm_itl import settings

Row = dict[str, Any]


class Trained(NamedTuple):
    """Attributes:
    numbers: `images` learned from, `steps` taken of those `planned`; with early stopping `evaluations`, `best_step` and
        `validation_mask_AP` of the weights that were kept, otherwise 0 and null.
    curve: rows of `step`, `loss` (mean since the row before), `learning_rate`, `mask_AP` on the validation images (null where not
        evaluated).
    """

    numbers: Row
    curve: list[Row]


NO_STOPPING = {"evaluations": 0, "best_step": None, "validation_mask_AP": None}  # of numbers, without early stopping


class ToPredict(NamedTuple):
    """Images to predict: from which score on an instance counts, what the progress bar says, and where the COCO results go."""

    data: Coco
    score_threshold: float
    desc: str
    target: Path


class Detector(Protocol):
    """What the stages `train` and `predict` ask of a kind. The same arguments give the same bytes."""

    def __init__(self, chosen: settings.Detector) -> None: ...

    def train(
        self, labels: Coco, images: Path, model: Path, training: settings.Training, seed: int, previous: Path | None = None,
        validation: Coco | None = None,
    ) -> Trained | None:  # fmt: skip
        """Train and write a model folder; None where another process of the same training says it.

        Args:
            labels: COCO instances; may hold images without annotations (they teach background).
            images: the folder of the images.
            previous: a model folder of the same kind to continue from; None starts from `detector.init`.
            validation: COCO instances that early stopping looks at.

        Raises:
            UserError: labels or settings are of no use, or the training fails.
        """

    def predict(self, model: Path, images: Path, sets: list[ToPredict], predict: settings.Predict) -> str | None:
        """Predict each of the sets.

        Returns:
            In words, how far the scores are from the threshold, where images have nothing that reaches it.
        """


def detector(chosen: settings.Detector) -> Detector:
    """The detector of these settings."""
    kind: type[Detector] = resolve_name(DETECTORS[chosen.kind])
    return kind(chosen)
