"""List the code that each stage uses, and each kind that the settings choose: DVC then re-runs what uses changed code and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl import registry
from vlm_itl.core.code import listing, used_by
from vlm_itl.core.files import write_text
from vlm_itl.pipeline.stage import File, Stage

STAGE = Stage(
    reads={"library": File("src/vlm_itl", "the library"), "stages": File("stages", "what DVC runs")},
    writes={"lists": File("artifacts/code", "folder of lists, a line a file, as md5sum writes them")},
    params=("autolabels", "judges", "runs"),
)


def main(library: Path, stages: Path, lists: Path, settings: dict[str, Any]) -> None:
    modules = {f"stages/{path.stem}": f"stages.{path.stem}" for path in stages.glob("*.py") if path.stem != "__init__"}
    places = {f"detectors/{kind}": place for kind, place in registry.DETECTORS.items()}
    places |= {f"sources/{kind}": place for kind, place in registry.SOURCES.items()}
    places |= {f"teachers/{name}": registry.TEACHERS[teacher.kind] for name, teacher in settings["autolabels"].items()}
    places |= {f"policies/{name}": registry.POLICIES[run.policy] for name, run in settings["runs"].items()}
    modules |= {name: place.partition(":")[0] for name, place in places.items()}
    modules |= {f"judges/{name}": type(judge).__module__ for name, judge in settings["judges"].items()}
    for name, module in modules.items():
        write_text(lists / f"{name}.md5", listing(used_by(module)))


if __name__ == "__main__":
    STAGE.run(main, __doc__)
