"""Pieces of work by actors of a Ray cluster, each of which has loaded a worker.

Nodes may go and come. A piece whose actor has died is given to another one, and in the dead one's place Ray starts the next as soon as a
node has room. Actors are not restarted by Ray itself: it would hold their piece back until there is room again, while others are idle.
"""

from __future__ import annotations

import itertools
import math
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

try:
    import ray
    from ray.exceptions import RayActorError, RayError, RayTaskError, RuntimeEnvSetupError
except ImportError:  # an extra requirement
    ray = None

from vlm_itl.core.errors import UserError
from vlm_itl.core.redact import say
from vlm_itl.engine import NODE, Engine, environment

P = TypeVar("P")
V = TypeVar("V")

PATIENCE = 120.0  # seconds without any worker until it is an error
DEATHS = 5  # of workers in a row, without a piece done between them
AHEAD = 4  # pieces a worker that may be finished before one that others wait for


class Actor:
    """Lives on a node; its worker is loaded with the first piece, so that an error of loading belongs to a piece."""

    def __init__(self, folder: str, load: Callable[[], Callable[[Any], Any]]) -> None:
        os.chdir(folder)  # paths are relative to the repository
        os.environ[NODE] = f"{self.node()[:8]}/{os.getpid()}"
        self.load = load
        self.worker: Callable[[Any], Any] | None = None

    def node(self) -> str:
        """The id of the node that it lives on."""
        name: str = ray.get_runtime_context().get_node_id()
        return name

    def work(self, piece: Any) -> Any:
        if self.worker is None:
            self.worker = self.load()
        return self.worker(piece)


def values(engine: Engine, load: Callable[[], Callable[[P], V]], pieces: Iterable[P], what: str) -> Iterator[V]:
    """See `vlm_itl.engine.values`. Says at the end which node has done how many."""
    if ray is None:
        raise UserError("VLM_ITL_ENGINE: ray is not installed; `make cluster` installs it")
    source = iter(pieces)
    some = list(itertools.islice(source, engine.workers))
    if not some:
        return
    connect(engine)
    try:
        yield from Pool(engine, load, itertools.chain(some, source), len(some), what).results()
    except RayError as error:
        raise lost(type(error).__name__) from None
    finally:
        if head_answers():  # or Ray would wait for it, and then end this process without a word of ours
            ray.shutdown()


def lost(why: str) -> UserError:
    return UserError(f"VLM_ITL_ENGINE: the Ray cluster is lost ({why}); start it and run this again: it goes on where it was")


def answers(address: str) -> bool:
    """
    Raises:
        OSError: nothing listens there.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    return True


def head_answers() -> bool:
    """Whether the head of the cluster still listens."""
    try:
        return answers(ray.get_runtime_context().gcs_address)
    except OSError:
        return False


def connect(engine: Engine) -> None:
    """
    Raises:
        UserError: there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    own: dict[str, Any] = {}
    if ":" in engine.address:  # Ray waits for minutes where nothing listens
        try:
            answers(engine.address)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise UserError(f"VLM_ITL_ENGINE: no Ray cluster at {engine.address}: {why}; `ray start --head` starts one") from None
    if engine.address == "local":
        own = {"num_cpus": max(1, math.ceil(engine.cpus * engine.workers)), "include_dashboard": False}
    try:
        ray.init(
            address=engine.address, log_to_driver=False, logging_level="ERROR", configure_logging=False,
            runtime_env={"env_vars": environment()}, **own,
        )  # fmt: skip
    except (ConnectionError, RayError, RuntimeError, ValueError, TimeoutError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"VLM_ITL_ENGINE: no Ray cluster at {engine.address}: {why}; `ray start --head` starts one; one that asks for a token needs "
            "RAY_AUTH_MODE=token here, too"
        ) from None


class Pool:
    """Actors and the pieces that they have, wait for, or have done."""

    def __init__(self, engine: Engine, load: Callable[[], Callable[[Any], Any]], pieces: Iterable[Any], workers: int, what: str) -> None:
        self.engine, self.what = engine, what
        self.kind = ray.remote(num_cpus=engine.cpus, num_gpus=engine.gpus, max_restarts=0, scheduling_strategy="SPREAD")(Actor)
        self.load = load
        self.source = enumerate(pieces)
        self.again: list[tuple[int, Any]] = []  # pieces whose worker has died, the first one first
        self.starting: dict[Any, Any] = {}  # actors by what says their node
        self.idle: deque[Any] = deque()
        self.busy: dict[Any, tuple[Any, int, Any]] = {}  # (actor, number of its piece, the piece) by what becomes its value
        self.done: dict[int, Any] = {}
        self.node: dict[Any, str] = {}  # of actors
        self.counts: Counter[str] = Counter()  # pieces by node
        self.deaths = 0
        for _ in range(workers):
            self.start()

    def start(self) -> None:
        actor = self.kind.remote(os.getcwd(), self.load)
        self.starting[actor.node.remote()] = actor

    def results(self) -> Iterator[Any]:
        """The values in order."""
        number, alive, asked = 0, time.monotonic(), time.monotonic()
        coming = next(self.source, None)
        while coming or self.again or self.busy or self.done:
            while self.idle and (self.again or (coming and coming[0] < number + AHEAD * self.engine.workers)):
                if self.again:
                    k, piece = self.again.pop(0)
                else:
                    assert coming  # by the condition above
                    (k, piece), coming = coming, next(self.source, None)
                actor = self.idle.popleft()
                self.busy[actor.work.remote(piece)] = actor, k, piece
            ready, _ = ray.wait([*self.busy, *self.starting], timeout=1.0)
            if time.monotonic() - asked > 2:
                asked = time.monotonic()
                if not head_answers():
                    raise lost("its head does not answer")
            for ref in ready:
                self.take(ref)
            if self.busy or self.idle:
                alive = time.monotonic()
            elif time.monotonic() - alive > PATIENCE:
                raise UserError(
                    f"VLM_ITL_ENGINE: for {PATIENCE:g} s no node of the Ray cluster has had {self.engine.cpus:g} CPUs and "
                    f"{self.engine.gpus:g} GPUs free; `ray status` says what there is"
                )
            while number in self.done:
                yield self.done.pop(number)
                number += 1
        nodes = "; ".join(f"node {name[:8]}: {count:,}" for name, count in sorted(self.counts.items()))
        say(f"{number:,} {self.what} by Ray: {nodes}")

    def take(self, ref: Any) -> None:
        """What has come of a reference: an actor lives, a piece is done, or an actor is dead."""
        actor, k, piece = self.busy.pop(ref) if ref in self.busy else (self.starting.pop(ref), None, None)
        try:
            value = ray.get(ref)
        except RuntimeEnvSetupError as error:
            raise UserError(f"VLM_ITL_ENGINE: a node cannot start a worker: {str(error).splitlines()[0]}") from None
        except RayActorError:
            self.deaths += 1
            if k is not None:
                self.again = sorted([*self.again, (k, piece)], key=lambda one: one[0])
            if self.deaths > DEATHS + self.engine.workers:
                raise UserError(
                    f"VLM_ITL_ENGINE: {self.deaths} workers in a row have died; a piece may need more memory than a node has: fewer "
                    "workers, or more cpus for each"
                ) from None
            say(f"a worker on node {self.node.get(actor, 'unknown')[:8]} has died; another one takes its place")
            self.start()
            return
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, UserError) else error.as_instanceof_cause()) from None
        if k is None:
            self.node[actor] = value
        else:
            self.done[k] = value
            self.counts[self.node[actor]] += 1
            self.deaths = 0
        self.idle.append(actor)
