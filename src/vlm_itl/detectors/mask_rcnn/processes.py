"""The processes that share a training or a prediction, as Detectron2 starts them (`detectron2.engine.launch`) or torchrun does.

They speak to each other through `detectron2.utils.comm`, which lacks only `mean` and `of_first`. For a single process nothing is started,
and nothing is sent.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from detectron2 import engine
from detectron2.utils import comm
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]
from torch.multiprocessing.spawn import ProcessException

from vlm_itl.core.errors import UserError
from vlm_itl.core.files import replacing
from vlm_itl.detectors.mask_rcnn.config import choose_device

GRACE = 3  # seconds that a process which fails lets pass before it ends


def mean(tensor: torch.Tensor) -> torch.Tensor:
    """The mean over the processes, the same in each; no gradient."""
    if comm.get_world_size() == 1:
        return tensor
    result = tensor.clone()
    dist.all_reduce(result)
    processes: int = comm.get_world_size()
    return result / processes


def of_first(function: Callable[[], Any]) -> Any:
    """What `function` returns in the first process, the only one that calls it."""
    if comm.get_world_size() == 1:
        return function()
    value = [function() if comm.is_main_process() else None]
    dist.broadcast_object_list(value)
    return value[0]


def launch(function: Callable[..., Any], processes: int, device: str, *arguments: Any) -> Any:
    """Call `function(*arguments)` in so many processes, which are one group; what the first returns.

    Under torchrun this process already is one of several: it joins them, whatever `processes` says.

    Args:
        function: of the top level of a module, since processes are started afresh.
        device: `auto`, `cpu` or `cuda`; on `cuda` each process gets a GPU of its own, on `cpu` its share of the threads.

    Returns:
        None in the processes of torchrun that are not the first.

    Raises:
        UserError: one raised it, one was killed, or there are fewer GPUs than processes. None is left running.
        OSError: one raised it.
    """
    device = choose_device(device)
    if dist.is_torchelastic_launched():
        return _join(function, device, arguments)
    if processes == 1:
        return function(*arguments)
    if device == "cuda" and processes > torch.cuda.device_count():
        raise UserError(f"params.yaml: detector.processes: {processes}, but torch sees {torch.cuda.device_count()} GPU(s)")
    before = set(multiprocessing.active_children())
    with tempfile.TemporaryDirectory() as name, _environment(device, processes):
        folder = Path(name)
        try:
            shared = (os.getpid(), folder, function, arguments)
            engine.launch(_child, processes, dist_url=f"file://{folder}/store", args=shared)
        except ProcessException as error:
            for file in sorted(folder.glob("error.*")):
                raise pickle.loads(file.read_bytes()) from None
            if how := getattr(error, "signal_name", None):
                said = f"one of {processes} processes was ended by {how}, so all were; run it again: it goes on where it was"
                raise UserError(said) from None
            raise
        finally:
            for process in set(multiprocessing.active_children()) - before:  # after Ctrl-C
                process.kill()
                process.join()
        if not (folder / "result").exists():  # Ctrl-C reached the processes and not this one
            raise KeyboardInterrupt
        return pickle.loads((folder / "result").read_bytes())


@contextmanager
def _environment(device: str, processes: int) -> Iterator[None]:
    """Of the processes that are started meanwhile."""
    wanted = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // processes))}
    if "GLOO_SOCKET_IFNAME" not in os.environ:
        wanted["GLOO_SOCKET_IFNAME"] = "lo"  # all are on this machine, which may have no network
    if device == "cpu":
        wanted["CUDA_VISIBLE_DEVICES"] = ""  # or Detectron2 gives each process a GPU, where there are some
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _child(parent: int, folder: Path, function: Callable[..., Any], arguments: Any) -> None:
    """One of the processes; leaves `folder/result`, or `folder/error.NUMBER` (an error meant for people)."""
    # torch would end the children of a killed parent by SIGINT, which shells have ignored in what they start in the background
    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    if os.getppid() != parent:  # it died before
        sys.exit(1)
    try:
        result = function(*arguments)
    except (UserError, OSError) as error:
        with replacing(folder / f"error.{comm.get_rank()}") as temporary:
            temporary.write_bytes(pickle.dumps(error))
        sys.exit(1)
    except Exception:
        time.sleep(GRACE)  # so that the parent sees another one first that has died, if this one only lost its connection to it
        raise
    if comm.is_main_process():
        (folder / "result").write_bytes(pickle.dumps(result))
    dist.destroy_process_group()


def _join(function: Callable[..., Any], device: str, arguments: Any) -> Any:
    """Under torchrun, which has said in the environment who this is."""
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=engine.DEFAULT_TIMEOUT)
    result = function(*arguments)
    first = comm.is_main_process()
    dist.destroy_process_group()
    return result if first else None
