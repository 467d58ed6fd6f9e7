"""How long judges computed. Seconds differ from run to run, so they may stand in no output of a stage and in nothing that git compares.

They lie under `scratch/timing` in a file for each timed output, named by the md5 of its content. So they are found whatever experiment
made the output, and never shown for another version of it. On a machine that did not make it there are none.
"""

from __future__ import annotations

import math
from pathlib import Path

from vlm_itl.core.errors import UserError
from vlm_itl.core.files import md5, read_json, scratch, write_json
from vlm_itl.core.redact import say


def record(output: Path, seconds: float, machines: int) -> None:
    """Keep how long the computing behind an output took: wall time, and how many machines were busy with it."""
    write_json(_file(md5(output)), {"seconds": seconds, "machines": machines})


def machine_seconds(digest: str) -> float | None:
    """Wall time x machines behind the output with this md5; None where it was not measured here, or its file is broken.

    Requests in flight overlap, so their own times do not add up to what the machines were paid for.
    """
    file = _file(digest)
    if not file.exists():
        return None
    try:
        took = read_json(file)
    except UserError:
        took = None
    given = [took.get(key) for key in ("seconds", "machines")] if isinstance(took, dict) else []
    numbers = [x for x in given if isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x < math.inf]
    if len(numbers) < 2:
        say(f"{file}: not how long a judge computed, so it is left out; remove the file")
        return None
    return round(math.prod(numbers), 6)


def of_output(path: str) -> float | None:
    """`machine_seconds` of an output as it lies in the working tree; None, too, where it does not."""
    return machine_seconds(md5(Path(path))) if Path(path).is_file() else None


def _file(digest: str) -> Path:
    return scratch() / "timing" / f"{digest}.json"
