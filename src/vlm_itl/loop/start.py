"""Labels, pool and annotation log before the first round."""

from __future__ import annotations

from vlm_itl.core.coco import Coco, by_image, empty_like
from vlm_itl.loop.annotation_log import Log, drawn
from vlm_itl.loop.labels import add


def initial(data: Coco, initial_ids: set[int], pool_ids: set[int], validation_ids: set[int]) -> tuple[Coco, Coco, Log]:
    """Labels, pool and log of `start`: a human has drawn the initial labels and the validation images."""
    labels, pool = empty_like(data), empty_like(data)
    rows = by_image(data)
    for image in data["images"]:
        if image["id"] in initial_ids:
            add(labels, image, {"human": rows.get(image["id"], [])}, run="start")
        elif image["id"] in pool_ids:
            pool["images"].append(image)
    log = [
        drawn("start", "labels", [rows.get(i, []) for i in initial_ids]),
        drawn("start", "validation", [rows.get(i, []) for i in validation_ids]),
    ]
    return labels, pool, log


def unlabelled(images: Coco, log: Log) -> tuple[Coco, Coco, Log]:
    """Labels, pool and log of a start without labels: nobody has drawn anything but the validation images.

    Args:
        images: all images that training may use, without annotations.
        log: that of `start`.
    """
    return empty_like(images), images, [entry for entry in log if entry.purpose == "validation"]
