"""From a record to what the network takes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.detection_utils import (
    annotations_to_instances,
    check_image_size,
    filter_empty_instances,
    transform_instance_annotations,
)

from vlm_itl.core.errors import UserError
from vlm_itl.core.pictures import read_picture


class PictureMapper(DatasetMapper):
    """Detectron2's, with the project's reader of pictures instead of its own, so that detector and judges see the same pixels."""

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """As in Detectron2: `image` (3 x height x width, uint8, in INPUT.FORMAT), and in training `instances`.

        Raises:
            UserError: INPUT.FORMAT is neither RGB nor BGR, or see `read_picture`.
        """
        record = copy.deepcopy(dataset_dict)
        if self.image_format not in ("RGB", "BGR"):
            raise UserError(f"detector.config: INPUT.FORMAT is {self.image_format}; pictures are read as RGB or BGR")
        pixels = read_picture(Path(record["file_name"]))
        pixels = pixels[:, :, ::-1] if self.image_format == "BGR" else pixels
        check_image_size(record, pixels)
        augmented = T.AugInput(pixels)
        transforms = self.augmentations(augmented)
        record["image"] = torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
        if self.is_train:
            self._transform_annotations(record, transforms, augmented.image.shape[:2])
        else:
            record.pop("annotations", None)
        return record

    def _transform_annotations(self, dataset_dict: dict[str, Any], transforms: Any, image_shape: tuple[int, int]) -> None:
        """As in Detectron2, with `gt_by_model` beside: whether a model made the instance."""
        rows = [row for row in dataset_dict.pop("annotations") if not row.get("iscrowd", 0)]
        moved = [transform_instance_annotations(row, transforms, image_shape) for row in rows]
        instances = annotations_to_instances(moved, image_shape, mask_format=self.instance_mask_format)
        instances.gt_by_model = torch.tensor([row.get("by_model", False) for row in rows], dtype=torch.bool)
        dataset_dict["instances"] = filter_empty_instances(instances)
