"""Which images take part."""

from __future__ import annotations

import pytest
from conftest import dataset, instance

from vlm_itl.core.errors import UserError
from vlm_itl.data.selection import left_out, select
from vlm_itl.settings import Select


def settings(**more) -> Select:
    return Select(**{"categories": ["bird", "book", "zebra"], "min_area": 0, **more})


MANY = dataset({i: [1 + i % 2] for i in range(1, 97)} | {i: [3, 1] for i in range(97, 101)})


def test_selection():
    data = dataset({1: [1], 2: [2], 3: [1, 2], 4: [3], 5: []})
    data["annotations"].append({**instance((1, 1, 2, 2), 1, 2), "id": 90})  # 4 px: below the minimum
    data["annotations"].append({**instance((1, 1, 30, 30), 1, 2), "id": 91, "iscrowd": 1})
    data["annotations"].append({**instance((1, 1, 30, 30), 1, 4), "id": 92, "iscrowd": 1})
    chosen = select(data, settings(categories=["bird", "book"], min_area=100), "training")
    assert [i["id"] for i in chosen["images"]] == [1, 2, 3]  # 4 has only a crowd of birds, 5 has nothing
    assert {a["id"]: a["iscrowd"] for a in chosen["annotations"] if a["image_id"] == 2} == {2: 0, 90: 1, 91: 1}
    assert [c["name"] for c in chosen["categories"]] == ["bird", "book"]


def shown(data: dict, c: int) -> set[int]:
    return {a["image_id"] for a in data["annotations"] if a["category_id"] == c}


def test_images_a_class():
    limited = select(MANY, settings(max_train_images_per_class=5, max_test_images_per_class=2), "training")
    # every class gets 5, or all it has; the zebras show birds too
    assert len(shown(limited, 3)) == 4
    assert len(shown(limited, 2)) == 5
    assert 5 <= len(shown(limited, 1)) <= 9
    few = select(MANY, settings(max_train_images_per_class=5, max_test_images_per_class=2), "test")
    assert len(shown(few, 2)) == 2


def test_seeded_and_independent_of_the_order_of_the_file():
    turned = {**MANY, "images": MANY["images"][::-1], "annotations": MANY["annotations"][::-1]}
    for more in ({"max_train_images_per_class": 5}, {"max_images": 20}):
        ids = [{i["id"] for i in select(data, settings(seed=seed, **more), "training")["images"]} for data, seed in
               ((MANY, 0), (turned, 0), (MANY, 1))]  # fmt: skip
        assert ids[0] == ids[1] != ids[2]


def test_at_most_so_many_images_of_every_class():
    few = select(MANY, settings(max_images=20), "training")
    assert len(few["images"]) == 20
    assert len(shown(few, 3)) >= 1
    assert abs(len(shown(few, 1)) - len(shown(few, 2))) <= 2
    assert select(MANY, settings(max_images=1000), "training") == select(MANY, settings(), "training")


def test_the_defaults_are_the_first_studys():
    default = Select()
    assert sorted(default.categories) == ["bird", "book", "stop sign", "zebra"]
    assert (default.min_area, default.max_train_images_per_class, default.max_test_images_per_class) == (100, 700, 70)


def test_errors_say_what_is_there():
    with pytest.raises(UserError, match=r"test data has no class 'dragon', 'unicorn' \(it has: bird, book, zebra\)"):
        select(MANY, settings(categories=["dragon", "bird", "unicorn"]), "test")
    with pytest.raises(UserError, match=r"no test image has an instance .* 10000 square pixels .*bird 52, book 48, zebra 4; iscrowd: 0"):
        select(MANY, settings(min_area=10_000), "test")
    with pytest.raises(UserError, match=r"select.max_images: 1 training images cannot show every class; 2 can"):
        select(MANY, settings(max_images=1), "training")
    with pytest.raises(KeyError, match="train"):  # not a part, rather than silently the other one
        select(MANY, settings(), "train")


def test_what_was_left_out_is_counted():
    data = dataset({1: [1], 2: [1], 3: [1], 4: [3], 5: [], 6: [1]})
    data["annotations"].append({**instance((1, 1, 2, 2), 1, 2), "id": 90})  # too small
    data["annotations"][-2]["iscrowd"] = 1  # all that is on image 6
    choice = settings(categories=["bird"], min_area=100, max_train_images_per_class=2)
    chosen = select(data, choice, "training")
    counts = left_out(data, chosen, choice)
    assert counts == {
        "images": 2, "images_without_instance": 3, "images_over_limit": 1, "instances": 2,
        "ignored_regions": int(2 in {i["id"] for i in chosen["images"]}),
    }  # fmt: skip
