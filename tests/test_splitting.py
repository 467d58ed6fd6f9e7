from __future__ import annotations

from collections import Counter

import pytest
from conftest import instance

from vlm_itl.errors import UserError
from vlm_itl.settings import Split
from vlm_itl.splitting import select, split, statistics


def dataset(images: dict[int, list[int]]) -> dict:
    """{image id: category ids of its instances}."""
    rows = [instance((1, 1, 20, 20), c, i) for i, classes in images.items() for c in classes]
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 50} for i in images],
        "annotations": [{**row, "id": k} for k, row in enumerate(rows, 1)],
        "categories": [{"id": 1, "name": "bird"}, {"id": 2, "name": "book"}, {"id": 3, "name": "zebra"}],
    }


def settings(**more) -> Split:
    return Split(**{"categories": ["bird", "book", "zebra"], "min_area": 0, **more})


MANY = dataset({i: [1 + i % 2] for i in range(1, 97)} | {i: [3, 1] for i in range(97, 101)})


def test_parts_are_disjoint_complete_and_of_the_asked_size():
    initial, pool, validation = split(MANY, settings(), seed=0)
    assert len(validation) == 10
    assert len(initial) == 18
    assert initial | pool | validation == set(range(1, 101))
    assert len(initial) + len(pool) + len(validation) == 100


def test_seeded_and_independent_of_the_order_of_the_file():
    turned = {**MANY, "images": MANY["images"][::-1], "annotations": MANY["annotations"][::-1]}
    assert split(MANY, settings(), 0) == split(turned, settings(), 0)
    assert split(MANY, settings(), 0) != split(MANY, settings(), 1)


@pytest.mark.parametrize("seed", range(20))
def test_no_class_is_missing_and_frequencies_are_kept(seed):
    initial, _, _ = split(MANY, settings(initial_fraction=0.1), seed)
    shown = Counter(a["category_id"] for a in MANY["annotations"] if a["image_id"] in initial)
    assert shown[3] >= 1
    assert abs(shown[1] - shown[2]) <= 2


def test_a_larger_initial_fraction_contains_the_smaller():
    small, _, v1 = split(MANY, settings(initial_fraction=0.2), 3)
    large, _, v2 = split(MANY, settings(initial_fraction=0.6), 3)
    assert small < large
    assert v1 == v2


def test_everything_initial_leaves_an_empty_pool():
    initial, pool, _ = split(MANY, settings(initial_fraction=1.0), 0)
    assert not pool
    assert len(initial) == 90


def test_too_few_for_every_class_says_how_many_are_needed():
    with pytest.raises(UserError, match=r"initial_fraction: 0.01 .* at least 0.0\d+ is needed") as error:
        split(dataset({i: [1 + i % 3] for i in range(1, 91)}), settings(initial_fraction=0.01), 0)
    needed = float(str(error.value).split("at least ")[1].split()[0])
    split(dataset({i: [1 + i % 3] for i in range(1, 91)}), settings(initial_fraction=needed), 0)


def test_a_class_without_training_instance_is_an_error():
    with pytest.raises(UserError, match="no training image has an instance of 'zebra'"):
        split(dataset({1: [1], 2: [2], 3: [1]}), settings(), 0)


def test_selection():
    data = dataset({1: [1], 2: [2], 3: [1, 2], 4: [3], 5: []})
    data["annotations"].append({**instance((1, 1, 2, 2), 1, 2), "id": 90})  # 4 px: below the minimum
    data["annotations"].append({**instance((1, 1, 30, 30), 1, 2), "id": 91, "iscrowd": 1})
    data["annotations"].append({**instance((1, 1, 30, 30), 1, 4), "id": 92, "iscrowd": 1})
    chosen = select(data, settings(categories=["bird", "book"], min_area=100), None, 0, "training")
    assert [i["id"] for i in chosen["images"]] == [1, 2, 3]  # 4 has only a crowd of birds, 5 has nothing
    assert {a["id"]: a["iscrowd"] for a in chosen["annotations"] if a["image_id"] == 2} == {2: 0, 90: 1, 91: 1}
    assert [c["name"] for c in chosen["categories"]] == ["bird", "book"]
    limited = select(MANY, settings(), 5, 0, "training")
    assert 5 <= len(limited["images"]) <= 15
    assert limited == select(MANY, settings(), 5, 0, "training")


def test_selection_errors():
    with pytest.raises(UserError, match="test data has no class 'dragon'"):
        select(MANY, settings(categories=["dragon"]), None, 0, "test")
    with pytest.raises(UserError, match="no test image has an instance"):
        select(MANY, settings(min_area=10_000), None, 0, "test")


def test_statistics_leave_ignored_regions_out():
    data = dataset({1: [1, 1], 2: [2]})
    data["annotations"][0]["iscrowd"] = 1
    numbers = statistics({"a": data, "none": {**data, "images": [], "annotations": []}})
    assert numbers["a"]["instances"] == 2
    assert numbers["a"]["ignored_regions"] == 1
    assert numbers["a"]["instances_per_class"] == {"bird": 1, "book": 1, "zebra": 0}
    assert numbers["none"]["mask_area"]["median"] is None


@pytest.mark.parametrize("seed", range(10))
def test_the_only_image_of_a_class_is_an_initial_one(seed):
    one = dataset({i: [1 + i % 2] for i in range(1, 60)} | {60: [3]})
    initial, _, _ = split(one, settings(initial_fraction=0.06), seed)
    assert 60 in initial
    assert len(initial) == 4
