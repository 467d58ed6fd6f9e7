"""`data.source: coco2017`: the official annotations, and of the pictures only those that are selected."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from tqdm import tqdm

from vlm_itl.core.coco import Coco, subset
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import feed, read_regular, scratch
from vlm_itl.core.pictures import suffix
from vlm_itl.core.redact import say
from vlm_itl.data.fetch import IN_A_ROW, Wanted, fetch
from vlm_itl.data.instances import most_bytes, normalise, parse_instances, picture_path, picture_problem, read_instances, renumbered, shared
from vlm_itl.data.selection import Part, category_ids, left_out, select
from vlm_itl.data.source import Fetched

if TYPE_CHECKING:
    from vlm_itl.settings import Coco2017, Data, Select

ARCHIVE = "annotations_trainval2017.zip"
HOSTS = ("images.cocodataset.org", "s3.amazonaws.com")  # where COCO's own pictures lie
PARTS: dict[str, tuple[Part, str]] = {"train": ("training", "train2017"), "test": ("test", "val2017")}


class Coco2017Source:
    """The published annotations, and the selected pictures: fetched, or found on this machine.

    Users cannot change the published files, so a training picture that is also a test picture is left out.
    """

    def __init__(self, data: Data) -> None:
        self.settings, self.max_pixels = data.coco2017, data.max_pixels

    def check(self) -> Iterator[tuple[str, str]]:
        yield from ()  # DVC may still have to fetch `data.root`

    def fetch(self, images: Path, root: Path, choice: Select) -> Fetched:
        """Read the annotations, select, and fetch the selected pictures, or find them on this machine; see `Source.fetch`.

        Args:
            images: gets the fetched pictures; pictures that lie on this machine are left where they are.
            root: a folder with COCO's annotation archive, or with COCO itself (`annotations/` and perhaps `train2017/`, `val2017/`).

        Returns:
            Rows also have the picture's `md5`, and, where `file_name` is relative, `original_name`, which is COCO's.

        Raises:
            UserError: the archive is not the published one, or more than `allow_missing` pictures cannot be had (each URL with its reason
                goes to the standard output).
        """
        settings, max_pixels = self.settings, self.max_pixels
        notes: dict[str, Counter[str]] = {}
        parts: dict[str, Coco] = {}
        urls: dict[str, dict[int, str | None]] = {}
        archive = root / ARCHIVE if (root / ARCHIVE).exists() else None
        if archive is not None:
            check_archive(archive, settings.archive_md5)
        for name, (part, folder) in PARTS.items():
            file = f"annotations/instances_{folder}.json"
            if archive is not None:
                where = f"{archive}: {file}"
                instances = parse_instances(read_member(archive, file), where)
            elif (root / file).exists():
                where = str(root / file)
                instances = read_instances(root / file)
            else:
                raise UserError(
                    f"params.yaml: data.root: {root} holds neither {ARCHIVE} (with root: data/coco2017, `dvc repro` fetches it) nor {file}"
                )
            ids = category_ids(instances.category_names(), choice, part, where)
            data, notes[name] = normalise(instances, ids, where, max_pixels)
            parts[name] = select(data, choice, part)
            notes[name].update(left_out(data, parts[name], choice))
            urls[name] = {row.id: row.coco_url for row in instances.images}
            for image in parts[name]["images"]:
                picture_path(images, image["file_name"], f"{where}: image {image['id']}")  # a name that leads elsewhere
        parts = renumbered(parts)

        images.mkdir(parents=True, exist_ok=True)
        base = settings.base_url
        if base is None and all((root / folder).is_dir() for _, folder in PARTS.values()):
            base = str(root.resolve())
        untried = 0
        if base is not None and base.startswith("file://"):
            missing = _read_in_place(parts, Path(url2pathname(urlsplit(base).path)), max_pixels)
        elif base is not None and "://" not in base:
            missing = _read_in_place(parts, Path(base), max_pixels)
        else:
            missing, untried = _fetch(parts, urls, images, base, settings, max_pixels)

        for problem in missing.values():
            say(f"missing: {problem}")  # a server's words, and names of strangers
        if untried:
            raise UserError(
                f"{IN_A_ROW} pictures in a row could not be fetched (listed above), so {untried} were not tried: is the network down, "
                "or a proxy or data.coco2017.base_url wrong? What was fetched is kept"
            )
        if len(missing) > settings.allow_missing:
            total = sum(len(data["images"]) for data in parts.values())
            raise UserError(
                f"{len(missing)} of {total} pictures cannot be had (listed above); what was fetched is kept, so run it again, "
                "or set data.coco2017.allow_missing in params.yaml"
            )
        for name, data in parts.items():
            notes[name]["missing_pictures"] = sum(part == name for part, _ in missing)
            parts[name] = subset(data, {i["id"] for i in data["images"]} - {i for part, i in missing if part == name})
        tested = {image["id"] for image, _ in shared(parts["train"], parts["test"])}
        notes["train"]["also_test_pictures"] = len(tested)
        parts["train"] = subset(parts["train"], {i["id"] for i in parts["train"]["images"]} - tested)
        return Fetched(parts, notes)


def check_archive(archive: Path, md5: str) -> None:
    """Hold the archive against the published sum.

    Raises:
        UserError: it has another.
    """
    actual = feed(hashlib.md5(), archive).hexdigest()
    if actual != md5:
        raise UserError(f"{archive}: md5 is {actual}, the published archive's {md5}; get it again: git checkout data.dvc && dvc repro")


def read_member(archive: Path, member: str) -> bytearray:
    """One file of the archive, read into memory: nothing is unpacked, so no member's name can lead anywhere.

    Raises:
        UserError: it is no zip file, or has no such member.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            # into one buffer of the known size: read() would hold the compressed and the growing text beside each other
            content = bytearray(opened.getinfo(member).file_size)
            done = 0
            with opened.open(member) as source, memoryview(content) as view:
                while block := source.read(1 << 20):
                    view[done : done + len(block)] = block
                    done += len(block)
            return content
    except KeyError:
        raise UserError(f"{archive}: holds no {member}") from None
    except zipfile.BadZipFile as error:
        raise UserError(f"{archive}: {error}") from None


def _read_in_place(parts: dict[str, Coco], folder: Path, max_pixels: int) -> dict[tuple[str, int], str]:
    """Point every row at its picture under `folder`; what is missing, by part and image id."""
    missing = {}
    for name, data in parts.items():
        below = (folder / PARTS[name][1]).absolute()
        for image in tqdm(data["images"], desc=f"checking {name} images", unit="image"):
            path = picture_path(below, image["file_name"], f"{below}: image {image['original_id']}")
            try:
                picture = read_regular(path, most_bytes(image))
                problem = picture_problem(picture, image, max_pixels)
            except OSError as error:
                problem = str(error.strerror)
            if problem:
                missing[name, image["id"]] = f"{path}: {problem}"
            else:
                image.update(file_name=str(path), md5=hashlib.md5(picture).hexdigest())
    return missing


def _fetch(
    parts: dict[str, Coco], urls: dict[str, dict[int, str | None]], images: Path, base: str | None, settings: Coco2017, max_pixels: int
) -> tuple[dict[tuple[str, int], str], int]:  # fmt: skip
    """Fetch what the store does not have and link it into `images`; what is missing, by part and image id, and how many were not tried.

    Annotations may be anybody's, and a `coco_url` could name a host of the network that only this machine reaches: only COCO's own, that
    of `base_url` and those of `data.coco2017.hosts` are asked.

    A linked file shares its bytes with the store and perhaps with DVC's cache: each of them is replaced, never written in place.
    """
    wanted: dict[Path, Wanted] = {}
    kept: dict[tuple[str, int], Path] = {}
    for name, data in parts.items():
        folder = PARTS[name][1]
        for image in data["images"]:
            where = f"{folder}: image {image['original_id']}"
            url = f"{base.rstrip('/')}/{folder}/{quote(image['file_name'])}" if base else urls[name][image["original_id"]]
            if url is None:
                raise UserError(f"{where} has no coco_url; set data.coco2017.base_url in params.yaml")
            path = picture_path(_store(base, url) / folder, image["file_name"], where)
            wanted[path] = Wanted(url, path, functools.partial(picture_problem, image=image, max_pixels=max_pixels), most_bytes(image))
            kept[name, image["id"]] = path
    hosts = {*HOSTS, *(host.lower() for host in settings.hosts), (urlsplit(base or "").hostname or "").lower()} - {""}
    done = fetch(list(wanted.values()), hosts, settings.connections, settings.retries, settings.timeout, settings.deadline)
    say(f"pictures fetched: {done.files:,} ({done.bytes / 1e6:,.1f} MB); there before: {done.there:,}")
    for name, data in parts.items():
        (images / name).mkdir(parents=True, exist_ok=True)
        for image in data["images"]:
            path = kept[name, image["id"]]
            if not path.exists():
                continue
            picture = path.read_bytes()
            target = images / name / f"{image['id']:012d}{suffix(picture)}"
            target.unlink(missing_ok=True)
            try:
                os.link(path, target)
            except OSError:  # another disk
                shutil.copyfile(path, target)
            image.update(
                file_name=f"{name}/{target.name}", original_name=image["file_name"], md5=hashlib.md5(picture).hexdigest()
            )  # fmt: skip
    return {key: done.failures[path] for key, path in kept.items() if path in done.failures}, done.untried


def _store(base: str | None, url: str) -> Path:
    """The store's folder for a server: mirrors are not mixed, and a password in a URL does not become a name."""
    address = urlsplit(base or url)
    name = f"{address.hostname or ''}:{address.port or ''}{address.path if base else ''}"
    return scratch() / "images" / re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_")
