"""dvc.yaml holds what the code does: every stage's deps, params and files against its module."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from vlm_itl.base.settings import load

GRAPH = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
STAGES = {name: stage.get("do", stage) for name, stage in GRAPH["stages"].items()}

PACKAGES = {f"src/vlm_itl/{name}" for name in ("base", "data", "detector", "judging", "autolabel")}  # deps as a whole


def module_file(name: str) -> Path | None:
    """The file of a module of this project, None for anything else."""
    for top in (ROOT, ROOT / "src"):
        base = top / name.replace(".", "/")
        if (base / "__init__.py").exists():
            return base / "__init__.py"
        if base.with_suffix(".py").exists() and name.split(".")[0] in ("stages", "vlm_itl"):
            return base.with_suffix(".py")
    return None


def imports(path: Path, module: str) -> set[str]:
    """Every module that a file names in an import, wherever in the file; relative names made absolute."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def closure(module: str) -> set[str]:
    """Files of this project that importing `module` can load, and the packages that they lie in."""
    seen: dict[str, Path] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        path = module_file(name)
        if path is None or name in seen:
            continue
        seen[name] = path
        todo += imports(path, name)
        if "." in name:
            todo.append(name.rpartition(".")[0])
    return {str(path.relative_to(ROOT)) for path in seen.values()}


def is_code(dep: str) -> bool:
    return dep.endswith(".py") or (dep.startswith("src/") and not dep.endswith(".jinja"))


def no_matter(path: str) -> bool:
    """A package that only holds modules together; that of the stages also says where the library lies."""
    return path == "stages/__init__.py" or [type(n) for n in ast.parse((ROOT / path).read_text()).body] in ([], [ast.Expr])


def entries(values: list) -> list[str]:
    return [next(iter(v)) if isinstance(v, dict) else v for v in values]


def parse(stage: dict):
    """(module, STAGE, arguments) of a stage's command line, templates and all."""
    words = shlex.split(stage["cmd"])
    assert words[:2] == ["python", "-m"]
    declaration = importlib.import_module(words[2]).STAGE
    return words[2], declaration, declaration.parser(words[2], "").parse_args(words[3:])


@pytest.mark.parametrize("name", STAGES)
def test_deps_are_the_import_closure(name):
    """A package may stand for its files: DVC writes dvc.lock anew after each stage, and each entry makes that slower."""
    module, _, _ = parse(STAGES[name])
    declared = [d for d in entries(STAGES[name]["deps"]) if is_code(d)]
    needed = {path for path in closure(module) if not no_matter(path)}
    under = {d: {path for path in needed if path == d or path.startswith(f"{d}/")} for d in declared}
    assert set().union(*under.values()) == needed
    assert [d for d in declared if not under[d]] == []
    assert {d for d in declared if (ROOT / d).is_dir()} <= PACKAGES


@pytest.mark.parametrize("name", STAGES)
def test_files_on_the_command_line_are_the_declared_ones(name):
    _, declaration, arguments = parse(STAGES[name])
    stage = STAGES[name]
    read = {str(v) for k in declaration.reads if (v := getattr(arguments, k)) is not None}
    written = {str(v) for k in declaration.writes if (v := getattr(arguments, k)) is not None}
    assert read == {d for d in entries(stage["deps"]) if not is_code(d)}
    assert written == set(entries([*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]))


@pytest.mark.parametrize("name", STAGES)
def test_params_are_what_the_stage_is_given(name):
    _, declaration, arguments = parse(STAGES[name])
    assert sorted(declaration.keys(arguments)) == sorted(STAGES[name].get("params", []))


@pytest.mark.parametrize("name", sorted({parse(s)[0] for s in STAGES.values()}))
def test_every_given_setting_is_used(name):
    """A key that DVC watches and the stage does not look at would re-run it for nothing."""
    used = set()
    for node in ast.walk(ast.parse(module_file(name).read_text())):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "settings":
            key = node.slice
            if isinstance(key, ast.Constant):
                used.add(key.value)
            elif isinstance(key, ast.JoinedStr):
                used.add("".join(p.value if isinstance(p, ast.Constant) else f"{{{ast.unparse(p.value)}}}" for p in key.values))
            else:
                used.add(f"{{{ast.unparse(key)}}}")
    assert used == set(importlib.import_module(name).STAGE.params)


def test_heavy_imports_stay_in_their_package():
    for path in (ROOT / "src").rglob("*.py"):
        heavy = set(re.findall(r"^\s*(?:import|from) (torch|torchvision|detectron2|transformers|httpx2)\b", path.read_text(), re.MULTILINE))
        allowed = {
            "detector": {"torch", "torchvision", "detectron2"},
            "vlm": {"torch", "transformers", "httpx2"},
            "autolabel": {"torch", "torchvision", "transformers"},
            "verifier": {"torch", "transformers"},
            "checkpoint.py": {"torch"},  # what the trainings of detector and verifier share
        }
        assert heavy <= allowed.get(path.name, allowed.get(path.parent.name, set())), path


def test_light_stages_do_not_load_torch():
    """Run elsewhere, since other tests have loaded it here: judging and counting must not wait for torch."""
    import subprocess
    import sys

    names = ("download", "split", "judge", "consistency", "calibrate", "update", "evaluate", "compare", "gallery", "report", "autolabel",
             "evaluate_autolabel", "sheet", "hold_back", "probes", "thresholds", "train_verifier")  # fmt: skip
    figures = ("figures_data", "figures_comparison", "figures_arms", "figures_judges")
    modules = [f"stages.{n}" for n in names + figures]
    code = f"import sys, importlib; [importlib.import_module(m) for m in {modules}]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_run_of_params_has_its_files():
    settings = load(ROOT / "params.yaml")
    for run in settings.runs.values():
        assert (ROOT / "judges" / run.judge / "prompt.txt").stat().st_size > 0
    assert (ROOT / settings.detector.config).exists()


def test_dvcignore_and_lock_settings():
    assert "__pycache__/" in (ROOT / ".dvcignore").read_text()
    assert "dvc.lock -merge" in (ROOT / ".gitattributes").read_text()


def test_the_lock_holds_no_stage_that_is_gone():
    """DVC keeps them, and writes them anew after every stage."""
    from dvc.repo import Repo

    recorded = YAML(typ="safe").load((ROOT / "dvc.lock").read_text())["stages"]
    with Repo(str(ROOT)) as repo:
        assert set(recorded) <= {getattr(stage, "name", None) for stage in repo.index.stages}
