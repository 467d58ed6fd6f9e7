"""Arms that begin without labels, added to the real graph as the guide says, on tiny random teachers."""

from __future__ import annotations

import math

import PIL.Image
import pytest
import tiny_autolabel
from pipeline import Clone, ran, shrink, stages_of

pytestmark = pytest.mark.pipeline


def start_of(name: str) -> set[str]:
    return {f"{kind}@{name}" for kind in ("autolabel", "evaluate-autolabel", "contact-sheet")}


def test_arms_without_initial_labels(tmp_path):
    detector, segmenter = tiny_autolabel.grounding_dino(tmp_path / "detector"), tiny_autolabel.sam2(tmp_path / "segmenter")

    def change(params: dict) -> None:
        shrink(params)
        params["detector"]["kind"] = "mask_rcnn"  # its steps tell which schedule it had
        params["runs"] = {}
        params["judges"]["vlm-sim"].update(recall=0.9, specificity=0.3)
        params["pretrain"]["epochs"] = 1.5
        params["select"]["categories"] = ["stop sign", "bird"]  # two passes a picture suffice

    work = Clone(tmp_path / "clone", change)
    assert "autolabel" not in work.run("dvc", "stage", "list", "--name-only").stdout  # the default leaves them out
    assert work.repro("evaluate-start", "probes") == {
        "download", "split", "pretrain", "predict-start", "evaluate-start", "hold-back", "probes",
    }  # fmt: skip
    before = work.digests("loop/start")
    work.commit("ran")

    teacher = f"{{kind:grounded-sam2,detector:{detector},segmenter:{segmenter},captions:{{stop sign:a red stop sign}},max_detections:2}}"
    done = work.run(
        "dvc", "exp", "run", "dvc.yaml", "-S", f"+autolabels.gsam2={teacher}",
        "-S", "+runs.autolabel-1={judge:always,prev:gsam2,policy:drop}",
        "-S", "+runs.autolabel-vlm-1={judge:vlm-sim,prev:gsam2,policy:drop}",
    )  # fmt: skip
    # whatever was there does not run again
    assert ran(done.stdout) == start_of("gsam2") | stages_of("autolabel-1") | stages_of("autolabel-vlm-1") | {
        "report", "compare", "figures",
    }  # fmt: skip
    assert work.digests("loop/start") == before

    # it begins with nothing but pictures
    everything = work.json("loop/gsam2/pool.json")
    initial, pool = work.json("loop/start/labels.json"), work.json("loop/start/pool.json")
    assert {i["id"] for i in everything["images"]} == {i["id"] for part in (initial, pool) for i in part["images"]}
    assert everything["annotations"] == work.json("loop/gsam2/labels.json")["images"] == []
    assert [row["purpose"] for row in work.json("loop/gsam2/ledger.json")] == ["validation"]
    assert len(work.json("loop/gsam2/teacher.json")["detector_revision"]) == 64
    proposals = work.json("loop/gsam2/proposals.json")
    images = len(everything["images"])
    assert 0 < len(proposals) <= 2 * images

    # every label is one of its proposals; the judge's rejections drop out
    summary = work.json("metrics/summary.json")
    for run in ("autolabel-1", "autolabel-vlm-1"):
        labels = work.json(f"loop/{run}/labels.json")
        assert {a["source"] for a in labels["annotations"]} == {"model"}
        drawn = {(p["image_id"], p["segmentation"]["counts"]) for p in proposals}
        assert {(a["image_id"], a["segmentation"]["counts"]) for a in labels["annotations"]} <= drawn
        assert work.json(f"loop/{run}/pool.json")["images"] == []
        assert (summary[run]["images_human"], summary[run]["human_hours"]) == (0, 0)
        assert 0 <= summary[run]["mask_AP"] <= 1
        # trained by the schedule of pretrain, since there was nothing to go on from: 1.5 epochs in batches of 8, not half of one
        numbers = work.json(f"metrics/training/{run}.json")
        assert numbers["steps"] == math.ceil(1.5 * numbers["images"] / 8)
    with_any = len({p["image_id"] for p in proposals})
    assert summary["autolabel-1"]["images_model"] == summary["autolabel-1"]["asked"] == with_any
    assert 0 < summary["autolabel-vlm-1"]["images_model"] < with_any
    assert work.json("metrics/cost/autolabel-1.json")["validation_hours"] == work.json("metrics/cost/start.json")["validation_hours"] > 0
    # judged against the truth of all images, the initial ones too
    assert work.json("metrics/judge/autolabel-1.json")["asked"] == with_any

    # Table 1 and the sheet
    numbers = work.json("metrics/autolabel/gsam2.json")
    assert numbers["images"] == images
    assert set(numbers["mask"]["per_class"]) == {"stop sign", "bird"}
    assert "metrics/autolabel/gsam2.json" in work.run("dvc", "metrics", "show").stdout
    with PIL.Image.open(work.folder / "loop/gsam2/contact_sheet.jpg") as sheet:
        assert min(sheet.size) > 100
    work.run("dvc", "plots", "show", "loop/gsam2/contact_sheet.jpg")
    assert list((work.folder / "dvc_plots").rglob("*contact_sheet.jpg"))


def test_a_model_that_cannot_be_had_is_said_in_one_line(tmp_path):
    work = Clone(tmp_path / "clone", shrink)
    work.run("dvc", "repro", "split")
    work.settings(lambda p: p.update(autolabels={"sam3": {"kind": "sam3", "revision": "0" * 40}}))
    done = work.run("dvc", "repro", "autolabel@sam3", check=False, HF_HUB_OFFLINE="1")
    assert done.returncode != 0
    [line] = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert "facebook/sam3" in line
    assert "https://huggingface.co/facebook/sam3" in line
    assert "Traceback" not in done.stdout
    assert not (work.folder / "loop/sam3/proposals.json").exists()
