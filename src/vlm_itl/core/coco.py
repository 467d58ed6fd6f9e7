"""The one form in which the project passes masks on: COCO instances with compressed RLE masks of the image's size.

`vlm_itl.data.instances` brings other people's files into it. Format: the "Object Detection" section of COCO's data format page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_util

from vlm_itl.core.errors import UserError
from vlm_itl.core.files import read_json

Rle = dict[str, Any]  # {"size": [height, width], "counts": str}
Coco = dict[str, Any]  # {"images": [...], "annotations": [...], "categories": [...]}
T = TypeVar("T")


_Pixels = Annotated[int, msgspec.Meta(ge=1)]


class _Mask(msgspec.Struct):
    size: tuple[_Pixels, _Pixels]
    counts: str


class _Image(msgspec.Struct):
    id: int
    file_name: str
    width: _Pixels
    height: _Pixels


class _Category(msgspec.Struct):
    id: int
    name: str


class _Annotation(msgspec.Struct):
    image_id: int
    category_id: int
    segmentation: _Mask
    iscrowd: int = 0


class _Result(_Annotation, kw_only=True):
    score: float


class _Instances(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read_instances(path: Path) -> Coco:
    """COCO instances as a stage has written them. Strangers' files are `vlm_itl.data.instances`'.

    Raises:
        UserError: there is no such file, it has another form, or it contradicts itself.
    """
    data: Coco = read_json(path)
    found = _in_form(path, data, _Instances)
    sizes = {image.id: (image.height, image.width) for image in found.images}
    classes = {category.id for category in found.categories}
    if len(sizes) < len(found.images) or len(classes) < len(found.categories):
        raise _torn(path, "two images or two classes have one id")
    for k, row in enumerate(found.annotations):
        if row.category_id not in classes or sizes.get(row.image_id) != row.segmentation.size:
            raise _torn(path, f"annotations[{k}]: there is no such image of this size, or no such class")
    return data


def read_results(path: Path) -> list[dict[str, Any]]:
    """COCO results as a stage has written them.

    Raises:
        UserError: there is no such file, or it has another form.
    """
    rows: list[dict[str, Any]] = read_json(path)
    _in_form(path, rows, list[_Result])
    return rows


def _in_form(path: Path, content: Any, form: type[T]) -> T:
    try:
        return msgspec.convert(content, form)
    except msgspec.ValidationError as error:
        raise _torn(path, str(error)) from None


def _torn(path: Path, why: str) -> UserError:
    return UserError(f"{path}: {why}; `dvc repro` makes it again once it is gone")


def encode(mask: NDArray[np.bool_]) -> Rle:
    """RLE of a boolean mask of shape (height, width)."""
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode(rle: Rle) -> NDArray[np.bool_]:
    """Boolean mask of shape (height, width)."""
    mask: NDArray[np.bool_] = mask_util.decode(rle).astype(bool)
    return mask


def result(image_id: int, category_id: int, mask: NDArray[np.bool_] | Rle, score: float) -> dict[str, Any]:
    """A row of COCO results: what a model says of one instance. `bbox` is [x, y, w, h] of the mask, in pixels."""
    rle = mask if isinstance(mask, dict) else encode(mask)
    return {
        "image_id": image_id, "category_id": category_id, "segmentation": rle, "bbox": [float(n) for n in mask_util.toBbox(rle)],
        "area": float(mask_util.area(rle)), "score": round(score, 6),
    }  # fmt: skip


def empty_like(data: Coco) -> Coco:
    """The same categories, no images and no annotations."""
    return {"images": [], "annotations": [], "categories": data["categories"]}


def subset(data: Coco, image_ids: set[int]) -> Coco:
    """The images of `image_ids` and their annotations, in the order of `data`."""
    return {
        "images": [image for image in data["images"] if image["id"] in image_ids],
        "annotations": [a for a in data["annotations"] if a["image_id"] in image_ids],
        "categories": data["categories"],
    }


def first(data: Coco, images: int | None) -> Coco:
    """So many images, the first ones, and their annotations; None: all."""
    return data if images is None else subset(data, {image["id"] for image in data["images"][:images]})


def originals(images: list[dict[str, Any]]) -> dict[int, int]:
    """For each image the lowest id of those with the same content (`md5` of its row), which is its own where it is no copy.

    Copies of a picture must not lie on two sides of a split.
    """
    first: dict[str, int] = {}
    for image in sorted(images, key=lambda image: image["id"]):
        if "md5" in image:
            first.setdefault(image["md5"], image["id"])
    return {image["id"]: first[image["md5"]] if "md5" in image else image["id"] for image in images}


def without_truth(images: list[dict[str, Any]], truth: Coco) -> list[dict[str, Any]]:
    """Of these images those that have no truth: nobody has labelled them, so it is not known what they show, if anything."""
    known = {image["id"] for image in truth["images"]}
    return [image for image in images if image["id"] not in known]


def by_image(data: Coco | list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """Annotations (or results) by image id; images without any are absent."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in data if isinstance(data, list) else data["annotations"]:
        rows.setdefault(row["image_id"], []).append(row)
    return rows
