"""Which detections of a model found what on which test image: all that AP needs, at any weight of the images."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlm_itl.core.errors import UserError
from vlm_itl.core.files import replacing

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval


@dataclass(frozen=True)
class Matches:
    """Matches of I images, K classes and D detections at T IoU thresholds.

    Detections stand by class, then image, then descending score: the order in which pycocotools joins them, which decides ties.

    Attributes:
        thresholds: (T,) IoU.
        classes: (K,) names.
        images: (I,) image ids as they are in the test file, as text, by ascending number.
        instances: (K, I) instances to find: not crowd, not ignored.
        image: (D,) index into `images`.
        category: (D,) index into `classes`, ascending.
        score: (D,)
        found: (T, D) the detection is matched to an instance that is to be found.
        ignored: (T, D) it is matched to a region to ignore, and counts neither way.
        labels: fingerprint of what the model was trained on (`vlm_itl.loop.labels.fingerprint`); empty where it is not known.
    """

    thresholds: NDArray[np.float64]
    classes: NDArray[np.str_]
    images: NDArray[np.str_]
    instances: NDArray[np.int32]
    image: NDArray[np.int32]
    category: NDArray[np.int32]
    score: NDArray[np.float64]
    found: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    labels: str = ""


def from_coco(evaluation: COCOeval, labels: str = "") -> Matches:
    """The matches of an evaluation of which `evaluate()` has run; area "all", the largest number of detections an image (100).

    Args:
        evaluation: of `metrics.detection.evaluate`, whose ids are ours: pycocotools writes an annotation's id 0 as "no match".
        labels: fingerprint of the model's labels.
    """
    p = evaluation.params
    given = {row["id"]: row.get("given_id", row["id"]) for row in evaluation.cocoGt.dataset["images"]}
    thresholds, images = np.asarray(p.iouThrs, dtype=np.float64), np.array([str(given[i]) for i in p.imgIds], dtype=np.str_)
    names = {row["id"]: row["name"] for row in evaluation.cocoGt.dataset["categories"]}
    instances = np.zeros((len(p.catIds), len(images)), dtype=np.int32)
    rows: list[tuple[int, int, dict[str, Any]]] = []
    for k in range(len(p.catIds)):
        start = k * len(p.areaRng) * len(images)  # by class, area range ("all" is the first) and image
        for i, match in enumerate(evaluation.evalImgs[start : start + len(images)]):
            if match is not None:
                instances[k, i] = np.count_nonzero(np.asarray(match["gtIgnore"]) == 0)
                rows.append((k, i, match))
    empty = np.zeros((len(thresholds), 0), dtype=bool)
    matched = np.concatenate([empty, *(row["dtMatches"] != 0 for _, _, row in rows)], axis=1)
    ignored = np.concatenate([empty, *(np.asarray(row["dtIgnore"], dtype=bool) for _, _, row in rows)], axis=1)
    lengths = [len(row["dtScores"]) for _, _, row in rows]
    return Matches(
        thresholds, np.array([names[c] for c in p.catIds], dtype=np.str_), images, instances,
        np.repeat(np.array([i for _, i, _ in rows], dtype=np.int32), lengths),
        np.repeat(np.array([k for k, _, _ in rows], dtype=np.int32), lengths),
        np.concatenate([np.zeros(0), *(row["dtScores"] for _, _, row in rows)]).astype(np.float64),
        matched & ~ignored, ignored, labels,
    )  # fmt: skip


def save(matches: Matches, path: Path) -> None:
    """Write an .npz; equal matches give equal bytes. The booleans take a bit each."""
    arrays = {f.name: getattr(matches, f.name) for f in fields(Matches)}
    for name in ("found", "ignored"):
        arrays[name] = np.packbits(arrays[name], axis=0)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def load(path: Path, content: bytes | None = None) -> Matches:
    """Read what `save` wrote: the file, or its `content` of another revision (`dvc.api.read(path, rev=..., mode="rb")`).

    Raises:
        UserError: the file is missing or is not of that kind.
    """
    try:
        with np.load(path if content is None else io.BytesIO(content)) as arrays:
            read: dict[str, Any] = {f.name: arrays[f.name] for f in fields(Matches) if f.name != "labels"}
            read["labels"] = str(arrays["labels"]) if "labels" in arrays else ""  # the file of an earlier commit has none
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc repro` makes it (stage evaluate)") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read as matches: {' '.join(str(error).split())}") from None
    for name in ("found", "ignored"):
        read[name] = np.unpackbits(read[name], axis=0, count=len(read["thresholds"])).astype(bool)
    return Matches(**read)


def same_predictions(a: Matches, b: Matches) -> bool:
    """Whether two models predicted the same of the same images, as far as AP sees it."""
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("image", "category", "score", "found", "ignored"))


def same_images(matches: list[Matches]) -> None:
    """Check that models were tested on the same images, instances and classes.

    Raises:
        UserError: they were not, so that their difference would not be one of the models.
    """
    first = matches[0]
    for other in matches[1:]:
        if not np.array_equal(first.images, other.images):
            odd = np.setxor1d(first.images, other.images)
            raise UserError(
                f"the models to compare were tested on different images ({len(odd)} differ, e.g. {odd[0]}); test them on the same"
            )
        for name, what in (("classes", "classes"), ("instances", "true instances"), ("thresholds", "IoU thresholds")):
            if not np.array_equal(getattr(first, name), getattr(other, name)):
                raise UserError(f"the models to compare were tested with different {what}; run the stage evaluate of all of them again")
