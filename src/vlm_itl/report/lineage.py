"""What outputs depend on, by the dvc.lock of a commit: commands, settings, code and data of every stage behind them, and the seed apart.

Two experiments with the same outputs' `key` are the same experiment with two seeds, whatever else their commits differ in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

PRICES = ("evaluate.seconds",)  # settings of stages behind a model's matches that change no model and no match


@dataclass(frozen=True)
class Lineage:
    key: str  # of everything but the seed
    seed: str  # `seed` of params.yaml; empty where no stage asked for it


def recorded(lock: Any) -> dict[str, dict[str, Any]]:
    """The stages of a dvc.lock by name; none of those that are not as DVC writes them."""
    stages = lock.get("stages") if isinstance(lock, dict) else None

    def whole(stage: Any) -> bool:
        rows = [row for kind in ("deps", "outs") for row in stage.get(kind) or []] if isinstance(stage, dict) else [None]
        return all(isinstance(row, dict) and isinstance(row.get("path"), str) for row in rows)

    return {name: stage for name, stage in stages.items() if whole(stage)} if isinstance(stages, dict) else {}


def written(lock: Any) -> dict[str, str]:
    """{path: md5} of what the stages of a dvc.lock are recorded to have written; of a folder it is DVC's own hash."""
    return {out["path"]: out["md5"] for stage in recorded(lock).values() for out in stage.get("outs") or [] if "md5" in out}


def as_set(path: str, settings: Any) -> str:
    """A path as the setting has it that names it. An absolute one inside the repository DVC writes relative to it, and as it is where an
    experiment runs in a folder of its own."""
    if isinstance(settings, dict):
        return next((found for value in settings.values() if (found := as_set(path, value)) != path), path)
    return settings if isinstance(settings, str) and settings.endswith(f"/{path}") else path


def lineage(lock: Any, outputs: Iterable[str], tracked: Callable[[str], str]) -> Lineage | None:
    """What these outputs were made of. Prices (`PRICES`) are no part of it: a person's seconds leave every model as it is.

    Args:
        lock: content of dvc.lock.
        outputs: paths.
        tracked: what git holds under a folder in which outputs lie too, since DVC's hash of that folder is theirs as well.

    Returns:
        None where dvc.lock does not record them, where a stage read something else than what another is recorded to have written (one of
        them was run by itself), or where the stages ran with several seeds.
    """
    outputs, stages = list(outputs), recorded(lock)
    made, md5s = makers(stages), written(lock)
    if any(path not in made for path in outputs):
        return None
    seen: dict[str, list[Any]] = {}
    seeds: set[Any] = set()
    for name in behind(stages, outputs):
        settings = dict(asked(stages[name]))
        if "seed" in settings:
            seeds.add(settings.pop("seed"))
        for key in PRICES:
            settings.pop(key, None)
        facts: list[Any] = [stages[name].get("cmd"), settings]
        for dep in stages[name].get("deps") or []:
            path = dep["path"]
            if path in made:
                if md5s.get(path) != dep.get("md5"):
                    return None
            elif any(out.startswith(f"{path}/") for out in made):
                facts.append([path, tracked(path)])
            else:
                facts.append([as_set(path, settings), dep.get("md5")])
        seen[name] = facts
    if len(seeds) > 1:
        return None
    key = hashlib.md5(json.dumps(sorted(seen.items()), sort_keys=True, default=str).encode()).hexdigest()
    return Lineage(key, "".join(map(str, seeds)))


def makers(stages: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Of each output the stage that writes it."""
    return {out["path"]: name for name, stage in stages.items() for out in stage.get("outs") or []}


def asked(stage: dict[str, Any]) -> dict[str, Any]:
    """The settings of params.yaml that a stage was made with, by key."""
    return (stage.get("params") or {}).get("params.yaml") or {}


def behind(stages: Mapping[str, dict[str, Any]], outputs: Iterable[str]) -> list[str]:
    """The stages that made these outputs, and what those were made of; outputs that no stage makes have none."""
    made = makers(stages)
    todo, found = [made[path] for path in outputs if path in made], dict[str, None]()
    while todo:
        name = todo.pop()
        if name not in found:
            found[name] = None
            for dep in stages[name].get("deps") or []:
                path = dep["path"]
                todo += [made[path]] if path in made else [stage for out, stage in made.items() if out.startswith(f"{path}/")]
    return list(found)


def changed_settings(lock: Any, outputs: Iterable[str], params: Any) -> list[str]:
    """Keys of params.yaml that say something else now than when these outputs were made.

    Args:
        lock: content of dvc.lock.
        params: content of params.yaml.
    """
    stages = recorded(lock)
    changed = {key for name in behind(stages, outputs) for key, value in asked(stages[name]).items() if _at(params, key) != value}
    return sorted(changed)


def _at(params: Any, key: str) -> Any:
    for part in key.split("."):
        params = params.get(part) if isinstance(params, dict) else None
    return params
