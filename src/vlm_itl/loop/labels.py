"""What verdicts do to labels: the policies.

| policy | approved image | rejected image |
| --- | --- | --- |
| `pool` | its proposals, or those that the verdict accepts, become labels (`source: model`) | stays in the pool for the next round |
| `annotate` | likewise | a human draws all its instances (`source: human`), and the ledger is charged |
| `correct` | likewise | the masks that the verdict accepts stay; a human looks, and draws the instances that none of them matches |
| `drop` | likewise | leaves |
| `ground_truth` | its *true* masks become labels (`source: ground_truth`), uncharged: the first study's leak | stays in the pool |

An image that was not asked about (no proposals) is treated as rejected. Under `correct`, an image with masks of both kinds has `source:
mixed`, and a human judge who decides on every mask has looked already. A round concerns the first `batch` images of the pool; the others
stay in it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pycocotools import mask as mask_util

from vlm_itl.core.coco import Coco, by_image, empty_like, first
from vlm_itl.core.errors import UserError
from vlm_itl.core.matching import missed
from vlm_itl.settings import Run

Ledger = list[dict[str, Any]]
NEED_TRUTH = ("annotate", "correct", "ground_truth")


def initial(data: Coco, initial_ids: set[int], pool_ids: set[int], validation_ids: set[int]) -> tuple[Coco, Coco, Ledger]:
    """Labels, pool and ledger of `start`: a human has drawn the initial labels and the validation images."""
    labels, pool = empty_like(data), empty_like(data)
    rows = by_image(data)
    ledger: Ledger = []
    for image in data["images"]:
        if image["id"] in initial_ids:
            _add(labels, image, {"human": rows.get(image["id"], [])}, run="start")
        elif image["id"] in pool_ids:
            pool["images"].append(image)
    for purpose, ids in (("labels", initial_ids), ("validation", validation_ids)):
        drawn = [a for i in ids for a in rows.get(i, []) if not a["iscrowd"]]
        ledger.append({"run": "start", "action": "draw", "actor": "human", "purpose": purpose,
                       "images": len(ids), "instances": len(drawn)})  # fmt: skip
    return labels, pool, ledger


def unlabelled(images: Coco, ledger: Ledger) -> tuple[Coco, Coco, Ledger]:
    """Labels, pool and ledger of a start without labels: nobody has drawn anything but the validation images.

    Args:
        images: all images that training may use, without annotations.
        ledger: that of `start`.
    """
    return empty_like(images), images, [row for row in ledger if row.get("purpose") == "validation"]


def update(
    name: str,
    run: Run,
    labels: Coco,
    pool: Coco,
    proposals: list[dict[str, Any]],
    verdicts: list[dict[str, Any]],
    truth: Coco | None,
    ledger: Ledger,
    iou: float,
) -> tuple[Coco, Coco, Ledger]:
    """Labels, pool and ledger after a run's verdicts.

    Args:
        name, run: the run and its line in params.yaml.
        truth: the pool's ground truth; needed by the policies of `NEED_TRUTH`, None for the others.
        iou: under `correct`, mask IoU from which on an accepted mask stands for an instance, so that nobody draws it.

    Returns:
        New labels (earlier ones unchanged, then this run's, by pool order), the images still unlabelled, the ledger with this run's
        actions.
    """
    shown = by_image(proposals)
    true = by_image(truth) if truth is not None else {}
    approved = {v["image_id"]: v.get("accepted") for v in verdicts if v["approve"]}
    accepted = {v["image_id"]: v["accepted"] for v in verdicts if "accepted" in v}
    new_labels: Coco = {**labels, "images": list(labels["images"]), "annotations": list(labels["annotations"])}
    new_pool = empty_like(pool)
    looked = {v["image_id"] for v in verdicts if v["asked"] and v["actor"] == "human" and "accepted" in v}  # and said what is missing
    drawn_images = drawn_instances = dropped = looks = 0
    batch = {image["id"] for image in first(pool, run.batch)["images"]}
    for image in pool["images"]:
        i = image["id"]
        if i not in batch:
            new_pool["images"].append(image)
        elif i in approved and run.policy == "ground_truth":
            _add(new_labels, image, {"ground_truth": true.get(i, [])}, run=name)
        elif i in approved:
            _add(new_labels, image, {"model": taken(shown[i], approved[i])}, run=name, judge=run.judge)
        elif run.policy == "annotate":
            _add(new_labels, image, {"human": true.get(i, [])}, run=name)
            drawn_images += 1
            drawn_instances += sum(1 for a in true.get(i, []) if not a["iscrowd"])
        elif run.policy == "correct":
            kept = taken(shown[i], accepted[i]) if i in accepted else []
            drawn = missed(kept, true.get(i, []), iou)
            _add(new_labels, image, {"model": kept, "human": drawn}, run=name, judge=run.judge)
            looks += i not in looked
            drawn_images += bool(drawn)
            drawn_instances += sum(1 for a in drawn if not a["iscrowd"])
        elif run.policy == "drop":
            dropped += 1
        else:
            new_pool["images"].append(image)
    asked = [v for v in verdicts if v["asked"]]
    new_ledger = list(ledger)
    if asked:
        new_ledger.append(
            {
                "run": name,
                "action": "verify",
                "actor": asked[0]["actor"],
                "judge": run.judge,
                "decisions": sum(v.get("questions", 1) for v in asked),
            }
        )
    people = sum(bool(v.get("person")) for v in asked)
    if people:  # the images that a model passed on
        new_ledger.append({"run": name, "action": "verify", "actor": "human", "judge": run.judge, "decisions": people})
    if looks:  # whether anything is missing: also where nothing is
        new_ledger.append({"run": name, "action": "verify", "actor": "human", "judge": run.judge, "decisions": looks})
    if drawn_images:
        new_ledger.append({"run": name, "action": "draw", "actor": "human", "purpose": "labels",
                           "images": drawn_images, "instances": drawn_instances})  # fmt: skip
    if dropped:
        new_ledger.append({"run": name, "action": "drop", "actor": "none", "images": dropped})
    return new_labels, new_pool, new_ledger


def taken(proposals: list[dict[str, Any]], accepted: list[bool] | None) -> list[dict[str, Any]]:
    """The proposals of one image that a verdict accepts; a verdict on the image as a whole (None) accepts all of them.

    Raises:
        UserError: the verdict is about another number of proposals.
    """
    if accepted is not None and len(accepted) != len(proposals):
        raise UserError(f"a verdict on {len(accepted)} masks of an image with {len(proposals)} proposals: they do not belong together")
    return proposals if accepted is None else [row for row, ok in zip(proposals, accepted, strict=True) if ok]


def _add(labels: Coco, image: dict[str, Any], rows: dict[str, list[dict[str, Any]]], *, run: str, judge: str | None = None) -> None:
    """Append an image and its annotations, with their provenance, under new annotation ids.

    Args:
        rows: annotations by source; the last source stands for an image that has none.
        judge: whose verdict let in those of a model.
    """
    sources = [source for source, own in rows.items() if own] or list(rows)[-1:]
    labels["images"].append({**image, "source": sources[0] if len(sources) == 1 else "mixed", "run": run})
    for source, row in ((source, row) for source, own in rows.items() for row in own):
        x = {
            "id": len(labels["annotations"]) + 1, "image_id": image["id"], "category_id": row["category_id"],
            "segmentation": row["segmentation"], "area": float(mask_util.area(row["segmentation"])),
            "bbox": [float(n) for n in mask_util.toBbox(row["segmentation"])], "iscrowd": row.get("iscrowd", 0),
            "source": source, "run": run,
        }  # fmt: skip
        if source == "model":
            x |= {"score": row["score"], "judge": judge}
        labels["annotations"].append(x)


def fingerprint(labels: Coco) -> str:
    """What of labels a detector can learn from, as a hash: images and masks with class, source and score, in any order.

    Two arms whose labels have one fingerprint have learned the same, whichever run and judge brought it.
    """
    rows = by_image(labels)

    def mask(row: dict[str, Any]) -> list[Any]:
        return [row["category_id"], row["segmentation"], row["iscrowd"], row["source"], row.get("score")]

    def image(row: dict[str, Any]) -> list[Any]:
        return [row["id"], row["source"], sorted(json.dumps(mask(a), sort_keys=True) for a in rows.get(row["id"], []))]

    return hashlib.md5("\n".join(sorted(json.dumps(image(row)) for row in labels["images"])).encode()).hexdigest()


def counts(labels: Coco) -> dict[str, dict[str, int]]:
    """Labelled images and instances by source."""
    result = {"images": dict.fromkeys(("human", "model", "mixed", "ground_truth"), 0),
              "instances": dict.fromkeys(("human", "model", "ground_truth"), 0)}  # fmt: skip
    for image in labels["images"]:
        result["images"][image["source"]] += 1
    for row in labels["annotations"]:
        result["instances"][row["source"]] += not row["iscrowd"]
    return result
