"""Partners of proposals, against every matching that there is."""

from __future__ import annotations

import itertools
import random

import numpy as np
from conftest import instance

from vlm_itl.core.matching import all_right, iou_matrix, on_crowd, partners, rightness, same_class
from vlm_itl.loop.accepted import accepted_proposals

IOU = 0.4  # below .5 a mask may fit several


def random_row(rng: random.Random, **more) -> dict:
    return instance((rng.choice((0, 3, 6)), 0, 10, rng.choice((8, 10))), rng.choice((1, 1, 2)), **more)


def matchings(fits) -> list[list[int | None]]:
    """All one-to-one choices of pairs that fit: a column or None for each row."""
    choices = itertools.product(*([None, *np.flatnonzero(row).tolist()] for row in fits))
    return [list(c) for c in choices if len({k for k in c if k is not None}) == sum(k is not None for k in c)]


def test_partners_are_the_best_of_all_matchings():
    rng, seen = random.Random(0), {True: 0, False: 0}
    for _ in range(300):
        proposals = [random_row(rng) for _ in range(rng.randrange(5))]
        truth = [random_row(rng, iscrowd=int(rng.random() < 0.2)) for _ in range(rng.randrange(5))]
        accepted = rng.choice([None, [rng.random() < 0.6 for _ in proposals]])
        single = [k for k, row in enumerate(truth) if not row["iscrowd"]]
        instances = [truth[k] for k in single]
        overlap, free = iou_matrix(proposals, instances), on_crowd(proposals, truth, IOU)
        possible = matchings((overlap >= IOU) & same_class(proposals, instances))
        oks = [True] * len(proposals) if accepted is None else accepted

        def worth(choice, oks=oks, free=free, overlap=overlap):
            rows = [k for k, column in enumerate(choice) if column is not None]
            off_crowd = sum(oks[k] and not free[k] for k in rows)
            return len(rows), off_crowd, sum(oks[k] for k in rows), round(sum(overlap[k, choice[k]] for k in rows), 6)

        own = partners(proposals, truth, IOU, accepted)
        choice = [None if place is None else single.index(place) for place in own]
        assert choice in possible
        assert worth(choice) == max(map(worth, possible))
        # and it says of what was accepted what the oracle says
        found = {place for place, ok in zip(own, oks) if ok and place is not None}
        at_home = all(place is not None or crowd for place, crowd, ok in zip(own, free, oks) if ok)
        right = all_right(accepted_proposals(proposals, accepted), truth, IOU)
        assert right == (at_home and found == set(single))
        seen[right] += 1
    assert min(seen.values()) > 20


def test_an_accepted_proposal_comes_before_one_that_fits_better():
    truth, better, worse = [instance((1, 1, 20, 20))], instance((1, 1, 20, 20)), instance((2, 1, 20, 20))
    assert partners([better, worse], truth, 0.6) == [0, None]
    assert partners([better, worse], truth, 0.6, [False, True]) == [None, 0]
    assert partners([better, worse], truth, 0.6, [False, False]) == [0, None]
    assert partners([better], [], 0.6) == [None]
    assert partners([], truth, 0.6) == []


def test_rightness_is_right_wrong_or_neither():
    bird, region = instance((1, 1, 10, 10)), instance((20, 0, 30, 40), iscrowd=1)
    truth = [bird, region]
    cases = {
        (1, 1, 10, 10, 1): True,
        (2, 1, 10, 10, 1): True,  # two may share an instance
        (1, 1, 10, 10, 2): False,  # another class
        (1, 20, 10, 10, 1): False,
        (25, 5, 8, 8, 1): None,  # wholly on the ignored region
        (17, 5, 8, 8, 1): None,  # 5 of its 8 columns
        (16, 5, 8, 8, 1): False,  # 4 of its 8 columns, less than .6
        (25, 5, 8, 8, 2): False,  # the region is of another class
    }
    proposals = [instance(case[:4], case[4]) for case in cases]
    assert rightness(proposals, truth, 0.6) == list(cases.values())
    inside = instance((25, 5, 8, 8))
    assert rightness([inside], [*truth, inside], 0.6) == [True]  # an instance inside the region is one to be found
    assert rightness([], truth, 0.6) == []


def test_class_ids_of_any_size():
    big = 2**64
    assert same_class([{"category_id": big}], [{"category_id": big}, {"category_id": big + 1}]).tolist() == [[True, False]]
    assert same_class([], [{"category_id": 1}]).shape == (0, 1)
