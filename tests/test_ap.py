"""AP of resampled images, beside pycocotools on a data set in which each image is repeated."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from conftest import instance
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vlm_itl.core.errors import UserError
from vlm_itl.metrics.ap import average_precision, mean_ap, swapped
from vlm_itl.metrics.detection import evaluate
from vlm_itl.metrics.matches import from_coco, load, same_images, save

CLASSES = [{"id": 3, "name": "bird"}, {"id": 5, "name": "book"}, {"id": 9, "name": "zebra"}]


def world(seed: int, images: int = 12, steps: int = 20, crowds: float = 0.15) -> tuple[dict, list[dict]]:
    """Random boxes in 40 x 50 images and results near them. With few `steps` many scores are tied between images, none within an image."""
    random = np.random.default_rng(seed)
    rows, results = [], []
    for image in range(1, images + 1):
        scores = iter(random.permutation(steps) / steps)
        for _ in range(random.integers(0, 5)):
            x, y = int(random.integers(0, 28)), int(random.integers(0, 18))
            c = int(random.choice([3, 5]))  # no zebra is ever there to be found
            rows.append(instance((x, y, 18, 18), c, image, iscrowd=int(random.random() < crowds)))
            for _ in range(random.integers(0, 3)):
                dx, dy = random.integers(-3, 4, 2)
                box = (max(0, x + int(dx)), max(0, y + int(dy)), 18, 18)
                results.append(instance(box, int(random.choice([c, c, c, 9])), image, score=float(next(scores))))
    truth = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 50} for i in range(1, images + 1)],
        "annotations": [{**row, "id": k} for k, row in enumerate(rows, 1)],
        "categories": CLASSES,
    }
    return truth, results


def matches_of(truth, results):
    return from_coco(evaluate(truth, results)["mask"])


def repeated(truth: dict, results: list[dict], times: np.ndarray) -> tuple[dict, list[dict]]:
    """The data set with each image `times` over, copies side by side."""
    copies, annotations, new_results = [], [], []
    for image, n in zip(truth["images"], times):
        for _ in range(n):
            number = len(copies) + 1
            copies.append({**image, "id": number})
            annotations += [{**a, "image_id": number} for a in truth["annotations"] if a["image_id"] == image["id"]]
            new_results += [{**r, "image_id": number} for r in results if r["image_id"] == image["id"]]
    annotations = [{**a, "id": k} for k, a in enumerate(annotations, 1)]
    return {"images": copies, "annotations": annotations, "categories": truth["categories"]}, new_results


def by_pycocotools(truth: dict, results: list[dict]) -> np.ndarray:
    """(K, T) AP, NaN for an absent class."""
    with contextlib.redirect_stdout(io.StringIO()):
        gt, dt = COCO(), COCO()
        gt.dataset = truth
        dt.dataset = {**truth, "annotations": [{**r, "id": k} for k, r in enumerate(results, 1)]}
        gt.createIndex()
        dt.createIndex()
        evaluation = COCOeval(gt, dt, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return np.where(precision[:, 0] > -1, precision.mean(axis=1), np.nan).T


@pytest.mark.parametrize("seed", range(12))
def test_identity_is_pycocotools(seed):
    truth, results = world(seed, steps=20 if seed % 2 else 10_000)
    mine = average_precision(matches_of(truth, results), np.ones((1, 12), dtype=int))[0]
    np.testing.assert_allclose(mine, by_pycocotools(truth, results), atol=1e-9, rtol=0)
    assert np.isnan(mine[2]).all()
    assert 0 < np.nanmean(mine) < 1


@pytest.mark.parametrize("seed", range(12))
def test_a_resample_is_pycocotools_on_repeated_images(seed):
    truth, results = world(seed, steps=20 if seed % 2 else 10_000)
    times = np.random.default_rng(seed).multinomial(12, np.full(12, 1 / 12), size=5)
    mine = average_precision(matches_of(truth, results), times)
    for row, n in zip(mine, times):
        np.testing.assert_allclose(row, by_pycocotools(*repeated(truth, results, n)), atol=1e-9, rtol=0)


def test_mean_is_the_metric_of_evaluate():
    truth, results = world(3)
    evaluation = evaluate(truth, results)["mask"]
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    mine = average_precision(from_coco(evaluation), np.ones((1, 12), dtype=int))
    assert mean_ap(mine)[0] == pytest.approx(precision[precision > -1].mean(), abs=1e-12)
    fifty = precision[0][precision[0] > -1].mean()
    assert mean_ap(mine[:, :, :1])[0] == pytest.approx(fifty, abs=1e-12)


def test_blocks_do_not_show(monkeypatch):
    truth, results = world(5)
    times = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=50)
    whole = average_precision(matches_of(truth, results), times)
    monkeypatch.setattr("vlm_itl.metrics.ap.CELLS", 100)
    np.testing.assert_array_equal(average_precision(matches_of(truth, results), times), whole)


def test_a_class_absent_from_a_resample_is_no_part_of_the_mean():
    box = (2, 2, 20, 20)
    truth = {
        "images": [{"id": i, "height": 40, "width": 50} for i in (1, 2)],
        "annotations": [instance(box, 3, 1, id=1), instance(box, 5, 2, id=2)],
        "categories": CLASSES,
    }
    matches = matches_of(truth, [instance(box, 3, 1, score=0.5)])
    ap = average_precision(matches, np.array([[1, 1], [2, 0], [0, 2], [0, 0]]))
    np.testing.assert_allclose(mean_ap(ap), [0.5, 1, 0, np.nan], atol=1e-12)
    np.testing.assert_array_equal(np.isnan(ap[:, :, 0]), [[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]])


def test_no_predictions_no_instances_one_image():
    truth, results = world(1, images=1)
    truth["annotations"] = [instance((2, 2, 20, 20), 3, 1, id=1)]
    one = np.ones((1, 1), dtype=int)
    assert mean_ap(average_precision(matches_of(truth, []), one))[0] == 0
    assert mean_ap(average_precision(matches_of(truth, [instance((2, 2, 20, 20), 3, 1, score=0.3)]), 7 * one))[0] == 1
    truth["annotations"] = []
    assert np.isnan(mean_ap(average_precision(matches_of(truth, results), one))[0])


def test_swapping_takes_each_images_detections_from_one_model():
    truth, results = world(2)
    _, others = world(2, steps=10_000)
    others = [r for k, r in enumerate(others) if k % 3]
    both = swapped(matches_of(truth, results), matches_of(truth, others))
    first = np.random.default_rng(0).integers(2, size=12)
    once = np.concatenate([np.ones((1, 12), dtype=int), np.zeros((1, 12), dtype=int)], axis=1)
    mine = average_precision(both, once, np.concatenate([first, 1 - first])[None])[0]
    chosen = {i for i, f in enumerate(first, 1) if f}
    mixture = [r for r in results if r["image_id"] in chosen] + [r for r in others if r["image_id"] not in chosen]
    np.testing.assert_allclose(mine, average_precision(matches_of(truth, mixture), np.ones((1, 12), dtype=int))[0], atol=1e-12)


def test_files_hold_the_same_matches_and_are_the_same_bytes(tmp_path):
    matches = matches_of(*world(4))
    save(matches, tmp_path / "a.npz")
    save(matches, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    read = load(tmp_path / "a.npz")
    for name in ("thresholds", "classes", "images", "instances", "image", "category", "score", "found", "ignored"):
        np.testing.assert_array_equal(getattr(read, name), getattr(matches, name))
    assert matches.ignored.any()
    again = load(tmp_path / "of another revision", (tmp_path / "a.npz").read_bytes())
    np.testing.assert_array_equal(again.found, matches.found)
    assert (read.labels, matches.labels) == ("", "")


def test_matches_know_their_models_labels_and_those_of_earlier_commits_do_not(tmp_path):
    from stages.evaluate import main
    from vlm_itl.core.files import write_json
    from vlm_itl.loop.labels import fingerprint
    from vlm_itl.settings import Seconds

    truth, results = world(4)
    own = {**truth, "images": [{**i, "source": "human"} for i in truth["images"]],
           "annotations": [{**a, "source": "human"} for a in truth["annotations"]]}  # fmt: skip
    paths = [tmp_path / f"{name}.json" for name in ("test", "predictions", "labels", "ledger")]
    for path, content in zip(paths, (truth, results, own, [])):
        write_json(path, content)
    out = [tmp_path / name for name in ("detection.json", "matches.npz", "cost.json")]
    settings = {"evaluate.seconds": Seconds(), "evaluate.judge_iou": 0.6, "people": []}
    main(*paths, tmp_path / "people", *out, settings=settings)
    assert load(out[1]).labels == fingerprint(own) != fingerprint({**own, "annotations": []})
    with np.load(out[1]) as arrays:
        np.savez(tmp_path / "old.npz", **{name: arrays[name] for name in arrays if name != "labels"})
    assert load(tmp_path / "old.npz").labels == ""


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 torn"])
def test_a_file_that_is_no_matches(tmp_path, content):
    path = tmp_path / "human-1.npz"
    with pytest.raises(UserError, match=r"human-1\.npz: no such file"):
        load(path)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"human-1\.npz: cannot be read as matches"):
        load(path)


def test_other_images_are_refused():
    matches = matches_of(*world(4))
    with pytest.raises(UserError, match="tested on different images"):
        same_images([matches, matches_of(*world(4, images=11))])
    with pytest.raises(UserError, match="different true instances"):
        same_images([matches, matches_of(*world(5))])
