"""Models of transformers, by hub id or by folder: which one it is, and what is said when it cannot be had."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlm_itl.core.errors import UserError
from vlm_itl.core.files import feed, read_json

WEIGHTS = (".safetensors", ".bin", ".json", ".jinja", ".txt", ".model", ".py", ".tiktoken", ".bpe", ".spm")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def identity(model: str, revision: str | None, key: str) -> dict[str, str]:
    """`model` and `revision`, which together say for good which weights these are: a folder's name and content, or a hub id and commit.

    Args:
        key: of params.yaml, for the message.

    Raises:
        UserError: a hub id without a commit, which may be another model tomorrow, or a folder that `check_folder` refuses.
    """
    folder = Path(model)
    if folder.is_dir():
        check_folder(folder, key)
        return {"model": folder.name, "revision": folder_hash(folder)}
    if not re.fullmatch("[0-9a-f]{40}", revision or ""):
        raise UserError(
            f"params.yaml: {key}: {model} is no folder here, so it is a hub id; pin its revision to a commit "
            f"(40 hex digits, from the list of files on https://huggingface.co/{model}), now {revision!r}"
        )
    return {"model": model, "revision": str(revision)}


def check_folder(folder: Path, key: str) -> None:
    """Refuse a folder whose weights are not all safetensors in the folder itself: others are not in its hash, or could run code.

    Raises:
        UserError: weights outside or pickled, an adapter whose base is elsewhere, an index that is none.
    """
    where = f"params.yaml: {key}: {folder}"
    for index in sorted(folder.glob("*.index.json")):
        content = read_json(index)
        names = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(names, dict):
            raise UserError(f"{where}: {index.name} has no weight_map; fetch the model again")
        for name in sorted({str(name) for name in names.values()}):
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise UserError(f"{where}: {index.name} names {name!r}; only .safetensors files in the folder itself are loaded")
    if (folder / "adapter_config.json").exists():
        raise UserError(f"{where}: an adapter, whose base model is elsewhere; merge the two (peft: merge_and_unload) and name that folder")
    if not any(folder.glob("*.safetensors")) and (pickles := sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)):
        raise UserError(f"{where}: its weights are pickled ({pickles[0]}), which can run code; save them as .safetensors (save_pretrained)")


def folder_hash(folder: Path) -> str:
    """sha256 over the names and contents of a model folder's files."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in WEIGHTS and p.is_file()):
        digest.update(str(path.relative_to(folder)).encode())
        feed(digest, path)
    return digest.hexdigest()


@contextmanager
def loading(model: str, key: str) -> Iterator[None]:
    """Say which model could not be loaded, where it comes from and what else can be given.

    Raises:
        UserError: instead of the errors by which transformers and safetensors say so.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a broken or foreign folder ends in any
        said = " ".join(str(error).split())[:300] or type(error).__name__
        source = (
            "look at its files"
            if Path(model).is_dir()
            else f"it comes from https://huggingface.co/{model} (a gated model wants its terms accepted there, then `hf auth login`); "
            f"without a network fetch it elsewhere by `hf download {model}` and name the folder here"
        )
        raise UserError(
            f"params.yaml: {key}: {model} cannot be loaded ({said}); {source}. A hub id or a folder with config.json, weights "
            "(.safetensors) and processor is expected"
        ) from None
