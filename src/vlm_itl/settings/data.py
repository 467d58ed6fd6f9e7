"""The sections `data`, `select` and `split`: where pictures come from, which take part, which are labelled at the start."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, model_validator

from vlm_itl.core.fields import MAX_PIXELS, Fraction, KindOf, Model, Seed
from vlm_itl.registry import SOURCES


class Synthetic(Model):
    train_images: Annotated[int, Field(ge=1)]
    """Scenes drawn for training."""
    test_images: Annotated[int, Field(ge=1)]
    """Scenes drawn for testing."""
    long_side: Annotated[int, Field(ge=64, le=1024)] = 160
    """The longer side of a scene, in pixels."""


class LocalPart(Model):
    """One COCO instances JSON and the folder its `file_name`s are relative to; both relative to `data.root`."""

    annotations: str
    """The COCO instances JSON, relative to `data.root`."""
    images: str
    """The folder that the JSON's `file_name`s are relative to, itself relative to `data.root`."""


class Local(Model):
    train: LocalPart
    """The training images."""
    test: LocalPart | None = None
    """The test images. null: `test_fraction` of the training images is held out, by `data.seed`."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the training images that is held out where `test` is not given."""
    pool: list[str] = Field(default_factory=list)
    """Folders of pictures without annotations, relative to `data.root`. With their subfolders they join the pool."""


class Coco2017(Model):
    """COCO 2017 (`data.root` holds the annotation archive, or COCO itself); only selected pictures are fetched."""

    base_url: str | None = None
    """A mirror, `file:///folder` or a folder that holds `train2017/` and `val2017/`. null: each picture's own `coco_url`."""
    allow_missing: Annotated[int, Field(ge=0)] = 0
    """Pictures that may be left out because they cannot be had."""
    connections: Annotated[int, Field(ge=1, le=64)] = 16
    """Requests under way at a time."""
    retries: Annotated[int, Field(ge=0)] = 5
    """Further tries of one request, with growing pauses."""
    timeout: Annotated[float, Field(gt=0)] = 30
    """Seconds to connect, and seconds without a byte."""
    deadline: Annotated[float, Field(gt=0)] = 300
    """Seconds for one whole picture."""
    hosts: list[str] = Field(default_factory=list)
    """Further hosts that pictures may be fetched from, besides COCO's and that of `base_url`."""
    archive_md5: str = "f4bbac642086de4f52a3fdda2de5fa2c"
    """The archive's md5, as published for `annotations_trainval2017.zip`."""

    @model_validator(mode="after")
    def _no_secrets(self) -> Coco2017:
        if self.base_url and "://" in self.base_url and re.search(r"[@?#]", self.base_url):
            raise ValueError("base_url is recorded by DVC, so it holds no user, password or query; put them into ~/.netrc")
        return self


class Data(Model):
    source: Annotated[str, KindOf(SOURCES)]
    """Where the pictures come from: drawn here, your own, or COCO 2017."""
    root: str
    """A folder that exists; `download` depends on it."""
    seed: Seed = 0
    """Seed of the drawn scenes and of a held-out test part."""
    max_pixels: Annotated[int, Field(ge=1, lt=2**31)] = MAX_PIXELS
    """A larger picture is refused before it is decoded."""
    synthetic: Synthetic | None = None
    """For the source `synthetic`."""
    local: Local | None = None
    """For the source `local`."""
    coco2017: Coco2017 = Field(default_factory=Coco2017)
    """For the source `coco2017`; every key has a default."""

    @model_validator(mode="after")
    def _source_has_settings(self) -> Data:
        if getattr(self, self.source) is None:
            raise ValueError(f"source is {self.source}, but data.{self.source} is not given")
        return self


class Select(Model):
    """Which images take part. The defaults are the first study's rules."""

    categories: Annotated[list[str], Field(min_length=1)] = Field(default_factory=lambda: ["book", "bird", "stop sign", "zebra"])
    """Names of the classes."""
    min_area: Annotated[float, Field(ge=0)] = 100
    """Square pixels of mask; smaller instances are not part of the task."""
    max_train_images_per_class: Annotated[int, Field(ge=1)] | None = 700
    """Most training images taken for a class. null: all."""
    max_test_images_per_class: Annotated[int, Field(ge=1)] | None = 70
    """Most test images taken for a class. null: all."""
    max_images: Annotated[int, Field(ge=1)] | None = None
    """Most images in the training and in the test part each, for trying out. null: all."""
    seed: Seed = 0
    """Seed that chooses the images where there are more."""

    @model_validator(mode="after")
    def _no_repeats(self) -> Select:
        if len(set(self.categories)) != len(self.categories):
            raise ValueError("categories names a class twice")
        return self


class Split(Model):
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the training images that is for validation."""
    initial_fraction: Fraction = 0.2
    """Share of the other training images that is labelled at the start."""
    seed: Seed = 0
    """Seed that divides the images."""
