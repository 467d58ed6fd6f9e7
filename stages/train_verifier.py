"""Train a vision-language model to verify masks and completeness, on probes of the initial labels. A killed training goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core import processor, timing
from vlm_itl.core.coco import read_instances, read_results
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import write_json
from vlm_itl.core.redact import say
from vlm_itl.judges.vlm.settings import VlmJudge
from vlm_itl.pipeline.stage import File, Stage
from vlm_itl.verifier.launching import launch

STAGE = Stage(
    reads={
        "fit": File("artifacts/held_back/fit.json", "labels to learn from"),
        "held_out": File("artifacts/held_back/held_out.json", "labels to measure on"),
        "proposals": File("artifacts/verifiers/{judge}/proposals.json", "of a detector on images that it has not seen"),
        "images": File("artifacts/data/images", "folder of the images"),
        "base_folder": File("judges/{base}", "the base judge's folder, with its model where that is no hub id"),
    },
    writes={
        "model": File("judges/{judge}/model", "folder of the trained model"),
        "curve": File("artifacts/verifiers/{judge}/curve.json", "the loss by step"),
        "metrics": File(
            "metrics/verifier/{judge}/held_out.json",
            "AUROC, accuracy and calibration on held-out images, beside the untrained model, rules and the detector's score",
        ),
    },
    options={"judge": "the judge that is trained", "base": "the judge whose model it starts from"},
    params=("processor", "verifiers.{judge}", "judges.{judge}", "judges.{base}", "evaluate.judge_iou"),
    kinds=("judges/{judge}",),
)


def main(
    fit: Path, held_out: Path, proposals: Path, images: Path, base_folder: Path, model: Path, curve: Path, metrics: Path,
    judge: str, base: str, settings: dict[str, Any],
) -> None:  # fmt: skip
    launch("stages.train_verifier")
    processor.choose(settings["processor"])
    from vlm_itl.verifier.training import train

    learner, teacher = settings[f"judges.{judge}"], settings[f"judges.{base}"]
    if not isinstance(learner, VlmJudge) or not isinstance(teacher, VlmJudge):
        raise UserError(f"params.yaml: verifiers: {judge} and {base} have to be judges of kind vlm")
    done = train(
        read_instances(fit), read_instances(held_out), read_results(proposals), images, learner.prompt, learner, teacher,
        settings[f"verifiers.{judge}"], settings["evaluate.judge_iou"], model,
    )  # fmt: skip
    if done is None:  # another process writes
        return
    numbers, rows = done
    seconds, machines = numbers.pop("seconds"), numbers.pop("machines")
    write_json(curve, rows)
    write_json(metrics, numbers)
    timing.record(metrics, seconds, machines)
    for kind in ("mask", "missing"):
        n = numbers[kind]
        say(f"{kind}: AUROC {n['auroc']} on {n['examples']} examples of held-out images (untrained: {n['untrained_auroc']})")


if __name__ == "__main__":
    STAGE.run(main, __doc__)
