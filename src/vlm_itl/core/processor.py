"""Equal numbers on every x86 processor with AVX2: which instructions and how many threads the libraries compute with.

Each library picks its code by the processor that it finds, and other code rounds otherwise; a training carries a last digit on to other
weights. They read these variables when they are loaded: numpy's are set as soon as anything of this project is imported, torch's by the
stages that load it, as `processor` of params.yaml says. A processor without AVX2 is left alone and gives numbers of its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from vlm_itl.core.redact import say

NUMPY = {
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "1",  # threads that share a sum round it otherwise; the matrices here are small
}
NUMPY_AVX512 = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR"}  # all that numpy has code for above AVX2
TORCH = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    # the one branch that AMD's processors share with Intel's: there, any other means AUTO (oneMKL Developer Guide, "Getting Started with
    # Conditional Numerical Reproducibility")
    "MKL_CBWR": "COMPATIBLE",
    # sums over a batch, such as gradients of convolutions, are made thread by thread; arms side by side use other cores better than threads
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


def flags() -> set[str]:
    """What Linux says that the processor can do; nothing where it does not say so."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return set(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def chosen() -> str:
    """`avx2` where torch is pinned in this process, else `native`: numbers of both are kept apart wherever work is found again."""
    return "avx2" if all(os.environ.get(name) == value for name, value in TORCH.items()) else "native"


def pin_numpy() -> None:
    """Always: it costs next to nothing here."""
    found = flags()
    if {"avx2", "fma"} <= found:
        os.environ.update(NUMPY | (NUMPY_AVX512 if "avx512f" in found else {}))


def choose(setting: Literal["avx2", "native"]) -> None:
    """For torch, which must not have been loaded yet, and for the processes that this one starts.

    Args:
        setting: `avx2`, the same instructions and threads everywhere; `native`, whatever this machine has.
    """
    if setting == "native":
        return
    if {"avx2", "fma"} <= flags():
        os.environ.update(TORCH)
    else:
        say("this processor has no AVX2 (or Linux does not say so): its numbers differ from those of processors that have it")
