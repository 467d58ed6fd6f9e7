"""Where many independent pieces of work are done: in this process, or by the nodes of a Ray cluster.

`VLM_ITL_ENGINE` of the environment says which, and no setting: the values are the same to the byte (on CPUs), so DVC has nothing to run
again. A piece is something small, such as the rows of a batch of images; a worker loads what it needs for it once, and reads pictures from
a folder that all nodes share.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from vlm_itl.core.errors import UserError
from vlm_itl.core.fields import Model, first_problem

P = TypeVar("P")
V = TypeVar("V")
VARIABLE = "VLM_ITL_ENGINE"
NODE = "VLM_ITL_NODE"  # set for workers of a cluster


class Engine(Model):
    """What the variable says: a kind, then `key=value`, as in `ray address=auto workers=4 cpus=2 gpus=1`."""

    kind: Literal["local", "ray"] = "local"
    address: Annotated[str, Field(pattern=r"^(auto|local|[A-Za-z0-9.:\[\]_-]+:[0-9]{1,5})$")] = "auto"
    """`auto`: the cluster that runs on this machine. `HOST:PORT`: that of `ray start --head`. `local`: one that ends with the stage."""
    workers: Annotated[int, Field(ge=1, le=10_000)] = 1
    """How many load the model and work side by side."""
    cpus: Annotated[float, Field(ge=0, le=1024)] = 1
    """CPUs that each of them takes of its node."""
    gpus: Annotated[float, Field(ge=0, le=64)] = 0
    """GPUs that each of them takes; .5 lets two share one."""


def chosen() -> Engine:
    """The engine that the environment asks for.

    Raises:
        UserError: it asks for none that there is.
    """
    kind, *rest = os.environ.get(VARIABLE, "local").split() or ["local"]
    pairs = dict(word.partition("=")[::2] for word in rest)
    try:
        return Engine.model_validate({"kind": kind, **pairs}, strict=False)
    except ValidationError as error:
        raise UserError(f"{VARIABLE}: {first_problem(error)}; as in: ray address=auto workers=4 cpus=2 gpus=1") from None


def values(engine: Engine, load: Callable[[], Callable[[P], V]], pieces: Iterable[P], what: str) -> Iterator[V]:
    """What a worker makes of each piece, in the order of the pieces.

    Args:
        load: makes a worker; picklable, of a module's top level.
        pieces: picklable, and small. They are taken when a worker is free, and some ahead.
        what: they are, for messages: `batches of images`.

    Raises:
        UserError: the cluster cannot be reached or has no such node, is lost on the way, or a worker raises one.
    """
    if engine.kind == "local":
        worker = load()
        yield from map(worker, pieces)
        return
    from vlm_itl.engine.on_ray import values as on_ray

    yield from on_ray(engine, load, pieces, what)


def machine() -> str:
    """What names the machine and process of a worker; empty in a process that is no cluster's."""
    return os.environ.get(NODE, "")


def environment() -> dict[str, Any]:
    """Variables of this process that decide what a worker computes, and where it finds this project."""
    from vlm_itl.core.code import ROOT
    from vlm_itl.core.processor import NUMPY, NUMPY_AVX512, TORCH

    names = {*NUMPY, *NUMPY_AVX512, *TORCH}
    found = {name: value for name, value in os.environ.items() if name in names or name.startswith("VLM_ITL_")}
    if "torch" in sys.modules:  # another number of threads rounds otherwise; Ray would take one for each CPU of a worker
        found["OMP_NUM_THREADS"] = str(sys.modules["torch"].get_num_threads())
    path = [str(ROOT / "src"), str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**found, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path))}
