"""The processes that share a training or a prediction: how they start, what they tell each other, and how they end together.

A single process is a group of one: nothing is started, and every function here gives back what it was given.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]
from torch.multiprocessing.spawn import ProcessException, ProcessRaisedException, spawn

from vlm_itl.core.errors import UserError
from vlm_itl.detectors.mask_rcnn.config import choose_device

# tensors of a GPU go over NCCL, Python objects and counts over gloo
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}


def rank() -> int:
    """This process's number, from 0; 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes share the work."""
    return dist.get_world_size() if dist.is_initialized() else 1


def total(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over the processes, the same in each; no gradient."""
    return _reduced(tensor, dist.ReduceOp.SUM)


def largest(tensor: torch.Tensor) -> torch.Tensor:
    """The maximum over the processes, element by element."""
    return _reduced(tensor, dist.ReduceOp.MAX)


def _reduced(tensor: torch.Tensor, operation: Any) -> torch.Tensor:
    if world() == 1:
        return tensor
    result = tensor.clone()
    dist.all_reduce(result, operation)
    return result


def of_first(function: Callable[[], Any]) -> Any:
    """What `function` returns in the first process, the only one that calls it."""
    if world() == 1:
        return function()
    value = [function() if rank() == 0 else None]
    dist.broadcast_object_list(value)
    return value[0]


def gathered(value: Any) -> list[Any]:
    """In the first process everybody's value, by rank; in the others an empty list."""
    if world() == 1:
        return [value]
    values = [None] * world() if rank() == 0 else None
    dist.gather_object(value, values)
    return values or []


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
        _join(device, int(os.environ["LOCAL_RANK"]), "env://", -1, -1)
        result = function(*arguments)
        first = rank() == 0
        dist.destroy_process_group()
        return result if first else None
    if processes == 1:
        return function(*arguments)
    if device == "cuda" and processes > torch.cuda.device_count():
        raise UserError(f"params.yaml: detector.processes: {processes}, but torch sees {torch.cuda.device_count()} GPU(s)")
    threads = max(1, torch.get_num_threads() // processes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        context = spawn(_child, (os.getpid(), processes, device, threads, folder, function, arguments), processes, join=False)
        try:
            while not context.join():
                pass
        except ProcessException as error:
            _explain(error, folder, [p.exitcode for p in context.processes])
            raise
        finally:
            for process in context.processes:  # after Ctrl-C
                process.kill()
                process.join()
        if not (folder / "result").exists():  # Ctrl-C reached the processes and not this one
            raise KeyboardInterrupt
        return pickle.loads((folder / "result").read_bytes())


def _join(device: str, gpu: int, where: str, number: int, processes: int) -> None:
    if device == "cuda":
        torch.cuda.set_device(gpu)
    dist.init_process_group(BACKENDS[device], init_method=where, rank=number, world_size=processes)


def _child(
    number: int, parent: int, processes: int, device: str, threads: int, folder: Path, function: Callable[..., Any], arguments: Any
) -> None:  # fmt: skip
    """One of the processes; leaves `folder/result`, `folder/error.NUMBER` (an error meant for people) or `folder/bug.NUMBER`."""
    # `spawn` would end the children of a killed parent by SIGINT, which shells have ignored in what they start in the background
    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    if os.getppid() != parent:  # it died before
        sys.exit(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are on this machine, which may have no network
    torch.set_num_threads(threads)
    _join(device, number, f"file://{folder}/store", number, processes)
    try:
        result = function(*arguments)
    except (UserError, OSError) as error:
        (folder / f"error.{number}").write_bytes(pickle.dumps(error))
        sys.exit(1)
    except Exception:
        (folder / f"bug.{number}").write_text(traceback.format_exc())
        raise
    if number == 0:
        (folder / "result").write_bytes(pickle.dumps(result))
    dist.destroy_process_group()


def _explain(error: ProcessException, folder: Path, codes: list[int | None]) -> None:
    """Raise what went wrong first, where that can be said in a line; the others only lost their connection to it."""
    for file in sorted(folder.glob("error.*")):
        raise pickle.loads(file.read_bytes()) from None
    after = (-signal.SIGTERM, -signal.SIGABRT)  # by `spawn`, and by gloo's threads where an error ends a process
    killed = [signal.Signals(-code).name for code in codes if code is not None and code < 0 and code not in after]
    name = killed[0] if killed else getattr(error, "signal_name", None)
    if name:
        raise UserError(f"one of {len(codes)} processes was ended by {name}, so all were; run it again: it goes on where it was") from None
    # the others notice only after this process has gone, and so after it wrote
    bugs = sorted(folder.glob("bug.*"), key=lambda file: file.stat().st_mtime_ns)
    if bugs:
        raise ProcessRaisedException(f"process {bugs[0].suffix[1:]}:\n{bugs[0].read_text()}", error.error_index, error.error_pid) from None
