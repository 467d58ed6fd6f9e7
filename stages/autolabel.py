"""A start without labels: foundation models, or another program, draw proposals on all training images; no person has drawn one."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from vlm_itl.core import processor
from vlm_itl.core.coco import read_instances
from vlm_itl.core.files import write_json
from vlm_itl.core.redact import say
from vlm_itl.detectors.untrained import write_untrained
from vlm_itl.loop import annotation_log
from vlm_itl.loop.start import unlabelled as without_labels
from vlm_itl.pipeline.stage import File, Stage
from vlm_itl.registry import TEACHERS

if TYPE_CHECKING:
    from vlm_itl.teachers.teacher import Teacher

STAGE = Stage(
    reads={
        "unlabelled": File("artifacts/split/unlabelled.json", "all training images, without labels"),
        "images": File("artifacts/data/images", "folder of the images"),
        "root": File("${data.root}", "the user's data, where a file of results lies"),
        "start_ledger": File(
            "loop/start/ledger.json", "what a human drew before any loop; of it only the validation images concern a start without labels"
        ),
    },
    writes={
        "labels": File("loop/{name}/labels.json", "none"),
        "pool": File("loop/{name}/pool.json", "all training images"),
        "ledger": File("loop/{name}/ledger.json", "the validation images"),
        "proposals": File("loop/{name}/proposals.json", "COCO results on the pool"),
        "model": File("loop/{name}/model", "folder that says that no detector has been trained"),
        "identity": File("loop/{name}/teacher.json", "which models drew: ids, revisions, settings, versions"),
    },
    options={"name": "the teacher's name in params.yaml"},
    params=("processor", "autolabels.{name}"),
    kinds=("teachers/{name}",),
)


def main(
    unlabelled: Path, images: Path, root: Path, start_ledger: Path, labels: Path, pool: Path, ledger: Path, proposals: Path, model: Path,
    identity: Path, name: str, settings: dict[str, Any],
) -> None:  # fmt: skip
    processor.choose(settings["processor"])
    everything, s = read_instances(unlabelled), settings[f"autolabels.{name}"]
    teacher: type[Teacher] = resolve_name(TEACHERS[s.kind])
    rows, who = teacher.label(s, everything, images, root)
    no_labels, whole_pool, log = without_labels(everything, annotation_log.read(start_ledger))
    write_json(labels, no_labels)
    write_json(pool, whole_pool)
    annotation_log.write(ledger, log)
    write_json(proposals, rows)
    write_json(identity, who)
    write_untrained(model)
    with_any = len({row["image_id"] for row in rows})
    say(f"{name}: {len(rows)} pseudo-labels on {with_any} of {len(everything['images'])} images")


if __name__ == "__main__":
    STAGE.run(main, __doc__)
