"""Models of transformers, by hub id or by folder: which one it is, and what is said when it cannot be had."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .base.errors import UserError
from .base.files import feed

WEIGHTS = (".safetensors", ".bin", ".json", ".jinja", ".txt", ".model", ".py")


def identity(model: str, revision: str | None, key: str) -> dict[str, str]:
    """`model` and `revision`, which together say for good which weights these are: a folder's name and content, or a hub id and commit.

    Args:
        key: of params.yaml, for the message.

    Raises:
        UserError: a hub id without a commit, which may be another model tomorrow.
    """
    folder = Path(model)
    if folder.is_dir():
        return {"model": folder.name, "revision": folder_hash(folder)}
    if not re.fullmatch("[0-9a-f]{40}", revision or ""):
        raise UserError(
            f"params.yaml: {key}: {model} is no folder here, so it is a hub id; pin its revision to a commit "
            f"(40 hex digits, from the list of files on https://huggingface.co/{model}), now {revision!r}"
        )
    return {"model": model, "revision": str(revision)}


def folder_hash(folder: Path) -> str:
    """sha256 over the names and contents of a model folder's files."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in WEIGHTS):
        digest.update(str(path.relative_to(folder)).encode())
        feed(digest, path)
    return digest.hexdigest()


@contextmanager
def loading(model: str, key: str) -> Iterator[None]:
    """Say which model could not be loaded, where it comes from and what else can be given.

    Raises:
        UserError: instead of the errors by which transformers and safetensors say so.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        source = (
            "look at its files"
            if Path(model).is_dir()
            else f"it comes from https://huggingface.co/{model} (a gated model wants its terms accepted there, then `hf auth login`); "
            f"without a network fetch it elsewhere by `hf download {model}` and name the folder here"
        )
        raise UserError(
            f"params.yaml: {key}: {model} cannot be loaded ({' '.join(str(error).split())[:300]}); {source}. A hub id or a folder with "
            "config.json, weights and processor is expected"
        ) from None
