"""The start that `detector.init: drawn` begins with: its pictures, its file, and the recipe that makes it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file
from tiny_detector import SMALL

from vlm_itl.core.errors import UserError
from vlm_itl.data.instances import normalise, read_instances
from vlm_itl.data.synthetic import dataset, other_things, surroundings, things
from vlm_itl.data.synthetic import scenes as scenes_of_four
from vlm_itl.data.synthetic.canvas import NOMINAL_SIDE
from vlm_itl.data.synthetic.other_things import WORLD
from vlm_itl.detectors.mask_rcnn.config import build_config
from vlm_itl.detectors.mask_rcnn.weights import initial_weights, load_weights
from vlm_itl.settings import Detector
from vlm_itl.tools import drawn_start

CONFIG = ROOT / "configs/mask_rcnn_thin_R_18_FPN.yaml"
FOUR = ("stop_sign", "perched_bird", "flying_bird", "wading_bird", "swimming_bird", "spine", "lying_book", "cover", "open_book")


def scenes(number: int) -> list[dataset.Scene]:
    return [dataset.draw_scene(np.random.default_rng([2000, k]), 96, WORLD) for k in range(number)]


def test_none_of_the_four_classes_is_drawn(monkeypatch):
    """Neither labelled nor in the background: the sprites that draw them are never called, and every quadruped is plain."""

    def refuse(*_, **__):
        raise AssertionError("one of the four classes")

    def plain(rng, scale, length, striped=True):
        assert not striped
        return quadruped(rng, scale, length, striped)

    quadruped = things.quadruped
    for module in (things, scenes_of_four, surroundings, other_things):
        for name in FOUR:
            monkeypatch.setattr(module, name, refuse, raising=module in (things, scenes_of_four))
        monkeypatch.setattr(module, "quadruped", plain, raising=module is not surroundings)
    names = {c["name"] for c in WORLD.categories}
    assert not names & {c["name"] for c in things.CATEGORIES}
    assert {c for scene in scenes(150) for c in scene.category_ids} == {c["id"] for c in WORLD.categories}
    with pytest.raises(AssertionError, match=r"one of the four classes|assert not"):  # the four's own scenes do call them
        dataset.draw_scene(np.random.default_rng(0), 96)


def test_masks_of_things_are_whole_and_apart():
    drawn = scenes(40)
    assert np.mean([len(s.masks) for s in drawn]) > 2
    for scene in drawn:
        assert np.sum(scene.masks, axis=0).max() == 1
        assert min(m.sum() for m in scene.masks) >= dataset.MIN_AREA * (96 / NOMINAL_SIDE) ** 2


def test_things_are_valid_coco_and_the_same_for_the_same_seed(tmp_path):
    for name in ("a", "b"):
        dataset.write_dataset(tmp_path / name, 4, 2, 96, 5, WORLD)
    one, other = ({p.name: p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()} for name in ("a", "b"))
    assert one == other
    content = json.loads((tmp_path / "a/train.json").read_text())
    assert "tree" in content["info"]["description"]
    data, notes = normalise(read_instances(tmp_path / "a/train.json"), {c["id"] for c in WORLD.categories}, "train")
    assert not sum(notes.values())
    assert len(data["images"]) == 4


def network(**options):
    from detectron2.modeling import build_model

    return build_model(build_config(Detector(config=str(CONFIG), device="cpu", options=options), 4))


def test_the_shipped_file_is_all_but_the_predictors():
    file = CONFIG.with_suffix(".safetensors")
    assert file.stat().st_size < 5_000_000
    shipped = load_file(file)
    assert {value.dtype for value in shipped.values()} == {torch.float16}
    assert all(value.isfinite().all() for value in shipped.values())
    model = network()
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    weights = {name for name in fresh if not name.endswith("num_batches_tracked")}
    assert weights - set(shipped) == {
        "roi_heads.box_predictor.cls_score.weight", "roi_heads.box_predictor.cls_score.bias",
        "roi_heads.box_predictor.bbox_pred.weight", "roi_heads.box_predictor.bbox_pred.bias",
        "roi_heads.mask_head.predictor.weight", "roi_heads.mask_head.predictor.bias",
    }  # fmt: skip
    assert set(shipped) <= weights
    settings = Detector(config=str(CONFIG), init="drawn")
    load_weights(model, initial_weights(settings, build_config(settings, 4)))
    for name, value in model.state_dict().items():
        assert value.dtype == (torch.int64 if name not in weights else torch.float32)
        assert torch.equal(value, shipped[name].float() if name in shipped else fresh[name]), name


def test_weights_named_in_settings_come_first_and_other_pixels_are_refused():
    settings = Detector(config=str(CONFIG), init="drawn", weights="mine.pth")
    assert initial_weights(settings, build_config(settings, 4)) == "mine.pth"
    with pytest.raises(UserError, match=r"^[^\n]*safetensors: these weights were not trained with \{\"INPUT\.FORMAT\": \"RGB\"\}[^\n]*$"):
        load_weights(network(**{"INPUT.FORMAT": "RGB"}), str(CONFIG.with_suffix(".safetensors")))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value):
    shipped = load_file(CONFIG.with_suffix(".safetensors"))
    shipped["backbone.fpn_lateral2.weight"].view(-1)[0] = value
    save_file(shipped, tmp_path / "broken.safetensors")
    with pytest.raises(UserError, match=r"^[^\n]*broken\.safetensors: [^\n]*backbone\.fpn_lateral2\.weight holds NaN or infinity[^\n]*$"):
        load_weights(network(), str(tmp_path / "broken.safetensors"))


def test_a_config_without_such_weights():
    settings = Detector(config=str(ROOT / "configs/mask_rcnn_R_50_FPN.yaml"), init="drawn")
    with pytest.raises(UserError, match=r"^[^\n]*mask_rcnn_R_50_FPN\.safetensors: no such weights file[^\n]*$"):
        load_weights(network(), initial_weights(settings, build_config(settings, 4)))


def test_the_recipe(tmp_path, capsys, monkeypatch):
    """Few pictures, two steps, a smaller detector: a file that the config beside it can begin with."""
    config = tmp_path / "small.yaml"
    tree: dict = {"_BASE_": CONFIG.name}
    for key, value in SMALL.items():
        *path, last = key.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    (tmp_path / CONFIG.name).write_text(CONFIG.read_text())
    config.write_text(json.dumps(tree))
    monkeypatch.setattr(drawn_start, "HELD_OUT", 3)
    monkeypatch.setenv("VLM_ITL_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr("sys.argv", ["drawn_start", "--config", str(config), "--pictures", "4", "--steps", "2"])
    drawn_start.main()
    printed = capsys.readouterr().out
    file = tmp_path / "small.safetensors"
    assert f"'bytes': {file.stat().st_size}" in printed
    made = load_file(file)
    assert sum(v.numel() for v in made.values()) == int(re.search(r"'parameters': (\d+)", printed)[1])
    assert not [name for name in made if name.startswith(drawn_start.PREDICTORS)]
    settings = Detector(config=str(config), init="drawn", device="cpu")
    from detectron2.modeling import build_model

    model = build_model(build_config(settings, 2))
    load_weights(model, initial_weights(settings, build_config(settings, 2)))
    loaded = model.state_dict()
    assert all(torch.equal(loaded[name], value.float()) for name, value in made.items())
    assert not list(tmp_path.glob("scratch/*/*"))
