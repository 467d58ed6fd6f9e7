"""How long a training is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlm_itl.settings import Training


def optimiser_steps(training: Training, images: int, batch: int) -> int:
    """Steps of a training on so many labelled images in batches of `batch`: at least 1, rounded up.

    `fixed_epochs`: epochs x images / batch. `fixed_steps`: steps. `adaptive`: steps x (images / `training.images`) ** growth.
    """
    if training.schedule == "fixed_epochs":
        assert training.epochs is not None
        return max(1, math.ceil(training.epochs * images / batch))
    assert training.steps is not None
    if training.schedule == "fixed_steps":
        return training.steps
    assert training.images is not None
    steps: float = training.steps * (images / training.images) ** training.growth
    return max(1, math.ceil(round(steps, 6)))
