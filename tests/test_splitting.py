from __future__ import annotations

from collections import Counter

import pytest
from conftest import dataset

from vlm_itl.core.errors import UserError
from vlm_itl.data.splitting import queue, split, statistics, table
from vlm_itl.settings import Split


def settings(**more) -> Split:
    return Split(**more)


MANY = dataset({i: [1 + i % 2] for i in range(1, 97)} | {i: [3, 1] for i in range(97, 101)})


def test_parts_are_disjoint_complete_and_of_the_asked_size():
    initial, pool, validation = split(MANY, settings())
    assert len(validation) == 10
    assert len(initial) == 18
    assert initial | pool | validation == set(range(1, 101))
    assert len(initial) + len(pool) + len(validation) == 100


def test_seeded_and_independent_of_the_order_of_the_file():
    turned = {**MANY, "images": MANY["images"][::-1], "annotations": MANY["annotations"][::-1]}
    assert split(MANY, settings(seed=0)) == split(turned, settings(seed=0))
    assert split(MANY, settings(seed=0)) != split(MANY, settings(seed=1))


@pytest.mark.parametrize("seed", range(20))
def test_no_class_is_missing_and_frequencies_are_kept(seed):
    initial, _, _ = split(MANY, settings(initial_fraction=0.1, seed=seed))
    shown = Counter(a["category_id"] for a in MANY["annotations"] if a["image_id"] in initial)
    assert shown[3] >= 1
    assert abs(shown[1] - shown[2]) <= 2


def test_a_larger_initial_fraction_contains_the_smaller():
    small, _, v1 = split(MANY, settings(initial_fraction=0.2, seed=3))
    large, _, v2 = split(MANY, settings(initial_fraction=0.6, seed=3))
    assert small < large
    assert v1 == v2


def test_everything_initial_leaves_an_empty_pool():
    initial, pool, _ = split(MANY, settings(initial_fraction=1.0, seed=0))
    assert not pool
    assert len(initial) == 90


def test_too_few_for_every_class_says_how_many_are_needed():
    with pytest.raises(UserError, match=r"initial_fraction: 0.01 .* at least 0.0\d+ is needed") as error:
        split(dataset({i: [1 + i % 3] for i in range(1, 91)}), settings(initial_fraction=0.01, seed=0))
    needed = float(str(error.value).split("at least ")[1].split()[0])
    split(dataset({i: [1 + i % 3] for i in range(1, 91)}), settings(initial_fraction=needed, seed=0))


def test_a_class_without_training_instance_is_an_error():
    with pytest.raises(UserError, match="no training image has an instance of 'zebra'"):
        split(dataset({1: [1], 2: [2], 3: [1]}), settings(seed=0))


def test_statistics_leave_ignored_regions_out():
    data = dataset({1: [1, 1], 2: [2]})
    data["annotations"][0]["iscrowd"] = 1
    numbers = statistics({"a": data, "none": {**data, "images": [], "annotations": []}})
    assert numbers["a"]["instances"] == 2
    assert numbers["a"]["ignored_regions"] == 1
    assert numbers["a"]["instances_per_class"] == {"bird": 1, "book": 1, "zebra": 0}
    assert numbers["none"]["mask_area"]["median"] is None
    assert {"part": "a", "class": "bird", "counted": "instances", "count": 1} in table(numbers)
    assert len(table(numbers)) == 2 * 2 * 3


@pytest.mark.parametrize("seed", range(10))
def test_the_only_image_of_a_class_is_an_initial_one(seed):
    one = dataset({i: [1 + i % 2] for i in range(1, 60)} | {60: [3]})
    initial, _, _ = split(one, settings(initial_fraction=0.06, seed=seed))
    assert 60 in initial
    assert len(initial) == 4


@pytest.mark.parametrize("seed", range(5))
def test_copies_of_a_picture_stay_on_one_side(seed):
    """Every image from 11 on is a copy of one of the first ten, and may show other classes there."""
    copied = {**MANY, "images": [{**i, "md5": f"{i['id'] % 10}"} for i in MANY["images"]]}
    chosen = settings(seed=seed, initial_fraction=0.5, validation_fraction=0.2)
    parts = split(copied, chosen)
    assert set().union(*parts) == set(range(1, 101))
    assert sorted(map(len, parts)) == [20, 40, 40]
    for residue in range(10):
        assert sum(any(i % 10 == residue for i in part) for part in parts) == 1
    # without copies nothing changes
    assert split({**MANY, "images": [{**i, "md5": str(i["id"])} for i in MANY["images"]]}, chosen) == split(MANY, chosen)


def test_the_queue_is_seeded_and_complete():
    data = {"images": [{"id": i} for i in range(1, 31)], "annotations": [], "categories": []}
    ids = [image["id"] for image in queue(data, 0)["images"]]
    assert sorted(ids) == list(range(1, 31))
    assert ids != sorted(ids)
    assert ids == [image["id"] for image in queue({**data, "images": data["images"][::-1]}, 0)["images"]]
    assert ids != [image["id"] for image in queue(data, 1)["images"]]
