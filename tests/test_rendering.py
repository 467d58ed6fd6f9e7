"""What is drawn is what is declared."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import instance
from scipy import ndimage

from vlm_itl.core.coco import encode
from vlm_itl.judges import rendering
from vlm_itl.settings import Render

PLAIN = np.full((40, 50, 3), 100, dtype=np.uint8)


def random_mask(seed: int, height: int = 40, width: int = 50) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.normal(size=(height, width)), 3) > 0.05


def test_masks_are_coloured_and_nothing_else():
    rows = [instance((5, 5, 12, 20)), instance((30, 10, 15, 10))]
    drawn = rendering.overlay(PLAIN, rows, Render(alpha=0.5, contour=2))
    inside = np.zeros((40, 50), bool)
    inside[5:25, 5:17] = inside[10:20, 30:45] = True
    assert (drawn[~inside] == 100).all()
    for k, (y, x) in enumerate([(15, 10), (15, 37)]):
        assert np.abs(drawn[y, x].astype(int) - (100 + rendering.COLOURS[k].astype(int)) // 2).max() <= 1  # within: blended
    assert (drawn[5, 5:17] == rendering.COLOURS[0]).all()  # at the edge: the colour itself
    assert (drawn[10:20, 31] == rendering.COLOURS[1]).all()
    assert (PLAIN == 100).all()  # the photograph is not touched


@pytest.mark.parametrize("width", [0, 1, 2, 5])
@pytest.mark.parametrize("seed", range(5))
def test_contour_agrees_with_erosion(seed, width):
    mask = random_mask(seed)
    eroded = ndimage.binary_erosion(mask, iterations=width) if width else mask
    assert (rendering.contour(mask, width) == (mask & ~eroded)).all()


def test_cut_is_the_mask_in_its_box():
    mask = random_mask(1)
    part, (x, y) = rendering.cut(encode(mask))
    again = np.zeros_like(mask)
    again[y : y + part.shape[0], x : x + part.shape[1]] = part
    assert (again == mask).all()


def test_the_number_lies_on_its_mask():
    mask = np.zeros((40, 50), bool)
    mask[5:35, 5:45] = True
    mask[10:30, 10:40] = False  # a frame: its centroid is outside
    x, y = rendering.mark(*((cut := rendering.cut(encode(mask)))[0], *cut[1]))
    assert mask[y, x]


def test_marks_are_drawn_only_where_asked_for():
    rows = [instance((5, 5, 30, 30))]
    plain, marked = (rendering.overlay(PLAIN, rows, Render(marks=m)) for m in (False, True))
    changed = (plain != marked).any(-1)
    assert changed.any()
    ys, xs = np.nonzero(changed)
    assert (ys.min() >= 5, ys.max() < 35, xs.min() >= 5, xs.max() < 35) == (True,) * 4


def test_more_proposals_than_colours_are_told_apart():
    colours = {tuple(rendering.colour(k).tolist()) for k in range(48)}
    assert len(colours) == 48


def test_beside_keeps_every_pixel():
    left, right = np.zeros((10, 20, 3), np.uint8), np.full((16, 8, 3), 7, np.uint8)
    both = rendering.beside(left, right, gap=4)
    assert both.shape == (16, 32, 3)
    assert (both[:10, :20] == 0).all()
    assert (both[:, 24:] == 7).all()
    assert (both[10:, :24] == 255).all()


@pytest.mark.parametrize("box", [(0, 0, 50, 40), (48, 38, 2, 2), (0, 0, 1, 1), (10, 0, 2, 40), (0, 20, 50, 1)])
def test_crops_stay_in_the_picture_and_keep_their_shape(box):
    row = instance(box)
    part = rendering.crop(PLAIN, row, 0.5)
    height, width = part.shape[:2]
    assert min(height, width) >= 1
    assert max(height, width) <= 4 * 224
    x, y, w, h = box
    left, right, top, bottom = (
        max(0, int(x - 0.5 * w)),
        min(50, int(np.ceil(x + 1.5 * w))),
        max(0, int(y - 0.5 * h)),
        min(40, int(np.ceil(y + 1.5 * h))),
    )
    assert width / height == pytest.approx((right - left) / (bottom - top), rel=0.15)


def test_boxes_surround(tmp_path):
    drawn = rendering.boxes(PLAIN, [instance((10, 10, 20, 15))])
    changed = (drawn != 100).any(-1)
    assert changed[10, 10:30].all()
    assert changed[24, 10:30].all()
    assert not changed[14:20, 14:26].any()
    assert not changed[:10].any()


def test_large_pictures_are_made_smaller():
    assert rendering.settle(np.zeros((1000, 2000, 3), np.uint8), 500).size == (500, 250)
    assert rendering.settle(np.zeros((10, 20, 3), np.uint8), 500).size == (20, 10)
    assert rendering.settle(np.zeros((10, 2000, 3), np.uint8), None).size == (2000, 10)
