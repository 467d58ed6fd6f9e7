"""Data sources: one class and one line of the registry each."""

from __future__ import annotations

import inspect
from pkgutil import resolve_name

import pytest
from conftest import ROOT
from pydantic import ValidationError

from vlm_itl import registry
from vlm_itl.data.source import Source, source
from vlm_itl.data.synthetic.dataset import write_dataset
from vlm_itl.settings import Data, Select

GIVEN = {
    "synthetic": {"train_images": 6, "test_images": 3, "long_side": 64},
    "local": {"train": {"annotations": "a.json", "images": "a"}, "test": {"annotations": "b.json", "images": "b"}},
    "coco2017": {},
}


def data(name: str, root: str = ".") -> Data:
    return Data.model_validate({"source": name, "root": root, name: GIVEN[name]})


@pytest.mark.parametrize("name", registry.SOURCES)
def test_each_line_of_the_registry_is_a_source(name):
    made = source(data(name))
    assert type(made) is resolve_name(registry.SOURCES[name])
    for method in ("check", "fetch"):
        assert list(inspect.signature(getattr(type(made), method)).parameters) == list(
            inspect.signature(getattr(Source, method)).parameters
        )


def test_params_may_name_the_sources_of_the_registry_alone():
    with pytest.raises(ValidationError, match=", ".join(f"'{name}'" for name in list(registry.SOURCES)[:-1])):
        Data.model_validate({"source": "imagenet", "root": "."})


def test_what_is_missing_is_said_by_the_source(tmp_path):
    """DVC may still have to fetch COCO's folder; the others' has to be there, and the user's files in it."""
    gone = str(tmp_path / "gone")
    problem = [("data.root", f"no such folder: {gone}")]
    assert {name: list(source(data(name, gone)).check()) for name in GIVEN} == {"synthetic": problem, "local": problem, "coco2017": []}
    (tmp_path / "a").mkdir()
    (tmp_path / "b.json").touch()
    assert list(source(data("local", str(tmp_path))).check()) == [
        ("data.local.train.annotations", f"no such file: {tmp_path / 'a.json'}"),
        ("data.local.test.images", f"no such folder: {tmp_path / 'b'}"),
    ]
    assert list(source(data("synthetic", str(tmp_path))).check()) == []


def test_drawn_scenes_are_selected_like_others(tmp_path):
    """Their pictures are those of the data set that the same settings draw; `select` says which rows take part."""
    write_dataset(tmp_path / "whole", 6, 3, 64, 0)
    choice = Select(categories=["bird", "zebra", "book", "stop sign"], min_area=0, max_train_images_per_class=1)
    parts, notes = source(data("synthetic")).fetch(tmp_path / "images", ROOT, choice)
    pictures = {str(p.relative_to(tmp_path / "images")): p.read_bytes() for p in (tmp_path / "images").rglob("*.jpg")}
    whole = tmp_path / "whole/images"
    assert pictures == {str(p.relative_to(whole)): p.read_bytes() for p in whole.rglob("*.jpg")}
    assert 0 < notes["train"]["images"] == len(parts["train"]["images"]) < 6
    assert notes["train"]["images_over_limit"] == 6 - len(parts["train"]["images"])
    assert {i["file_name"] for part in parts.values() for i in part["images"]} <= pictures.keys()
