"""Show where a run's judge was right, partly right and wrong: a page with pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core.coco import read_instances, read_results
from vlm_itl.core.files import write_json, write_text
from vlm_itl.core.redact import say
from vlm_itl.judges import verdict
from vlm_itl.pipeline.stage import File, Stage
from vlm_itl.report import gallery

STAGE = Stage(
    reads={
        "verdicts": File("loop/{run}/verdicts.jsonl", "what the run's judge said"),
        "proposals": File("loop/{prev}/proposals.json", "what it was shown: the previous run's proposals"),
        "pool": File("loop/{prev}/pool.json", "the images that it was asked about: the previous run's pool"),
        "truth": File("artifacts/split/truth.json", "the pool's ground truth"),
        "images": File("artifacts/data/images", "folder of the images"),
        "template": File("src/vlm_itl/report/gallery.html.jinja", "the page without its content (jinja2)"),
    },
    writes={
        "page": File("loop/{run}/gallery.html", "the gallery, HTML with its pictures inside"),
        "examples": File("loop/{run}/examples.json", "some of its cards, for the report"),
    },
    options={"run": "the run's name", "prev": "the run before", "judge": "its judge's name in params.yaml"},
    params=("judges.{judge}", "evaluate.judge_iou", "gallery"),
    kinds=("judges/{judge}",),
)


def main(
    verdicts: Path, proposals: Path, pool: Path, truth: Path, images: Path, template: Path, page: Path, examples: Path,
    run: str, judge: str, settings: dict[str, Any],
) -> None:  # fmt: skip
    content = gallery.collect(
        verdict.read(verdicts), read_results(proposals), read_instances(pool), read_instances(truth), images,
        settings[f"judges.{judge}"], settings["evaluate.judge_iou"], settings["gallery"],
    )  # fmt: skip
    write_text(page, gallery.render(template.read_text(encoding="utf-8"), run, judge, content))
    write_json(examples, gallery.examples(content, settings["gallery"].examples))
    say(", ".join(f"{group.count} {group.name}" for group in content.groups))


if __name__ == "__main__":
    STAGE.run(main, __doc__)
