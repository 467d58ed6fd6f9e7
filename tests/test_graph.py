"""dvc.yaml holds what the code does: every stage's deps, params and files against its module, and every entry's place in the graph.

A stage is what stands in dvc.yaml; an entry is what DVC makes of it, one for each run, judge, ... of params.yaml. The default has no
entries of some stages, so settings with at least one of each are resolved by DVC itself.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import networkx as nx
import pytest
from conftest import ROOT
from dvc.repo import Repo
from ruamel.yaml import YAML

from stages import code
from vlm_itl import registry
from vlm_itl.pipeline.stage import filled
from vlm_itl.settings import Settings, VlmJudge, check, load, wanted

GRAPH = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
STAGES = {name: stage.get("do", stage) for name, stage in GRAPH["stages"].items()}


def module_file(name: str) -> Path | None:
    """The file of a module of this project, None for anything else."""
    for top in (ROOT, ROOT / "src"):
        base = top / name.replace(".", "/")
        if (base / "__init__.py").exists():
            return base / "__init__.py"
        if base.with_suffix(".py").exists() and name.split(".")[0] in ("stages", "vlm_itl"):
            return base.with_suffix(".py")
    return None


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below, but for what is for type checkers."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from executed(child)


def imports(path: Path, module: str) -> set[str]:
    """Every module that a file names in an import, wherever in the file; relative names made absolute."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in executed(ast.parse(path.read_text())):
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
        if (
            path is None or name in seen or f"{name}.".startswith(("vlm_itl.settings.", "vlm_itl.registry."))
        ):  # declarations: DVC watches the values
            continue
        seen[name] = path
        todo += imports(path, name)
        if "." in name:
            todo.append(name.rpartition(".")[0])
    return {str(path.relative_to(ROOT)) for path in seen.values()}


def is_code(dep: str) -> bool:
    return dep.startswith("artifacts/code/")


def entries(values: list) -> list[str]:
    return [next(iter(v)) if isinstance(v, dict) else v for v in values]


CHECK = "python -m stages.check"


def commands(stage: dict) -> list[str]:
    return stage["cmd"] if isinstance(stage["cmd"], list) else [stage["cmd"]]


def parse(stage: dict):
    """(module, STAGE, arguments) of a stage's last command, templates and all."""
    words = shlex.split(commands(stage)[-1])
    assert words[:2] == ["python", "-m"]
    declaration = importlib.import_module(words[2]).STAGE
    return words[2], declaration, declaration.parse(words[2], "", words[3:])


def check_files(stage: dict, paths: dict[str, str]) -> None:
    """What a command reads and writes is what dvc.yaml says; `paths` are those that come from settings, by key."""
    _, declaration, arguments = parse(stage)
    read = {str(v) for k in declaration.reads if (v := getattr(arguments, k, None)) is not None}
    read |= {paths[file.setting] for file in declaration.reads.values() if file.setting}
    written = {str(v) for k in declaration.writes if (v := getattr(arguments, k)) is not None}
    assert read == {d for d in entries(stage["deps"]) if not is_code(d)}
    assert written == set(outputs(stage))


def outputs(stage: dict) -> list[str]:
    return entries([*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])])


def everything(params: dict) -> None:
    """Settings in which every stage has an entry, and every kind of edge is there."""
    params["autolabels"] = {"gsam2": {"kind": "grounded-sam2"}, "sam3": {"kind": "sam3"}}
    params["verifiers"] = {"verifier": {"base": "vlm"}}
    params["probed"] = ["vlm", "verifier", "vlm-sim"]
    params["people"] = ["person"]
    params["calibrations"] = {"calibrated": {"probed": "vlm"}, "bands": {"probed": "verifier"}}
    params["runs"] = {
        "human-1": {"judge": "human", "prev": "start"}, "human-2": {"judge": "human", "prev": "human-1"},
        "calibrated-1": {"judge": "calibrated", "prev": "start"}, "verifier-1": {"judge": "verifier", "prev": "gsam2"},
        "bands-1": {"judge": "bands", "prev": "start", "policy": "annotate"}, "drawn-1": {"judge": "never", "prev": "sam3"},
    }  # fmt: skip


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> tuple[dict[str, dict], nx.DiGraph, Settings]:
    """(entries as DVC resolves them, its graph of them: an edge from each to what it depends on, settings)."""
    folder = tmp_path_factory.mktemp("full")
    for name in ("dvc.yaml", "configs", "data"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    everything(params)
    YAML(typ="safe").dump(params, folder / "params.yaml")
    with Repo.init(str(folder), no_scm=True) as repo:
        graph = nx.relabel_nodes(repo.index.graph, lambda stage: stage.name)
        dvcfile = next(stage.dvcfile for stage in repo.index.stages)
        resolved = {name: dvcfile.resolver.resolve_one(name)[name] for name in graph}
    return resolved, graph, load(folder / "params.yaml")


def test_every_stage_has_an_entry(full):
    assert {name.partition("@")[0] for name in full[0]} == set(STAGES)


def test_every_entry_reads_and_writes_what_it_declares(full):
    resolved, _, settings = full
    paths = {"data.root": settings.data.root, "detector.config": settings.detector.config}
    for stage in resolved.values():
        check_files(stage, paths)
        _, declaration, arguments = parse(stage)
        assert sorted(declaration.keys(arguments)) == sorted(stage.get("params", []))


def test_what_an_entry_writes_is_found_by_those_that_read_it(full):
    """DVC orders entries by paths: of a file that is read, its folder or a file in it that another writes."""
    resolved, graph, _ = full
    writer = {path: name for name, stage in resolved.items() for path in outputs(stage)}
    for name, stage in resolved.items():
        for dep in entries(stage["deps"]):
            above = {str(p) for p in (Path(dep), *Path(dep).parents)}
            sources = {by for path, by in writer.items() if path in above or Path(path).is_relative_to(dep)}
            assert sources <= set(graph.successors(name)), (name, dep)
            if not sources and Path(dep).parts[0] != "judges":  # the folder of a judge comes with the judge
                assert (ROOT / dep).exists(), f"{name}: nobody writes {dep}"


LOOKS = {"stages.judge", "stages.consistency", "stages.train_verifier"}  # load the model of the judge whose settings they get
DRAWS = {"stages.gallery"}  # uses such settings for what was shown


def test_a_stage_that_loads_a_judge_waits_for_what_is_made_of_it(full):
    """The model that train-verifier writes and the thresholds of `calibrate` lie in the judge's folder; its settings say that it needs
    them. Which stages load a judge is tested by tests/test_verifier_graph.py, by the files that they open."""
    resolved, graph, settings = full
    waiting = set()
    for name, stage in resolved.items():
        for judge in (key.partition(".")[2] for key in stage.get("params", []) if key.startswith("judges.")):
            assert parse(stage)[0] in LOOKS | DRAWS, f"{name} gets settings of a judge: say here whether it loads its model"
            s = settings.judges[judge]
            if parse(stage)[0] in DRAWS or not isinstance(s, VlmJudge) or name == f"train-verifier@{judge}":
                continue
            makers = {f"train-verifier@{trained}" for trained in settings.verifiers if s.model == f"judges/{trained}/model"}
            makers |= {f"calibrate@{judge}"} if s.calibrated else set()
            assert makers <= nx.descendants(graph, name), name
            if makers:
                waiting.add(name)
    assert waiting == {"judge@verifier-1", "judge@bands-1", "judge@calibrated-1", "judge-probes@verifier", "consistency@verifier"}


def test_names_reach_a_shell_after_they_were_checked():
    """DVC does not quote what it puts into a command, and runs the commands of a stage one by one."""
    for stage in STAGES.values():
        first, *others = commands(stage)
        assert "${" not in first
        if others:
            assert (first, len(others)) == (CHECK, 1)
        templates = re.findall(r"\$\{([^}]*)\}", " ".join(commands(stage)))
        assert {template.partition(".")[0] for template in templates} <= {"key", "item"}  # names alone


def test_the_keys_that_dvc_wants_are_known(full):
    """By DVC's own account of every entry."""
    resolved, _, settings = full
    asked = {key for stage in resolved.values() for key in stage.get("params", [])}
    sections = {re.fullmatch(r"\$\{(.*)\}", stage["foreach"])[1] for stage in GRAPH["stages"].values() if "foreach" in stage}
    assert set(wanted(GRAPH, settings.model_dump())) == asked | sections | {"data.root", "data.source", "detector.config", "detector.kind"}


def test_every_entry_depends_on_the_lists_of_its_code(full):
    """Its own, and those of the kinds that its settings choose, which `Stage.check_code` looks at when it runs."""
    resolved, _, settings = full
    for name, stage in resolved.items():
        module, declaration, arguments = parse(stage)
        lists = declaration.code(module, partial(filled, settings=settings, options=vars(arguments)))
        assert {d for d in entries(stage["deps"]) if is_code(d)} == {str(path) for path in lists}, name


def test_the_lists_are_the_import_closure(full, tmp_path, monkeypatch):
    """By another account of the imports, which reads every file."""
    settings = full[2]
    monkeypatch.chdir(ROOT)
    code.main(Path("src/vlm_itl"), Path("stages"), tmp_path, {key: getattr(settings, key) for key in code.STAGE.params})
    lists = {str(path.relative_to(tmp_path).with_suffix("")): path for path in tmp_path.rglob("*.md5")}
    modules = {f"stages/{parse(stage)[0].rpartition('.')[2]}": parse(stage)[0] for stage in STAGES.values()}
    kinds = {f"detectors/{kind}": place for kind, place in registry.DETECTORS.items()}
    kinds |= {f"teachers/{name}": registry.TEACHERS[teacher.kind] for name, teacher in settings.autolabels.items()}
    kinds |= {f"sources/{kind}": place for kind, place in registry.SOURCES.items()}
    kinds |= {f"policies/{name}": registry.POLICIES[run.policy] for name, run in settings.runs.items()}
    modules |= {name: place.partition(":")[0] for name, place in kinds.items()}
    modules |= {f"judges/{name}": type(judge).__module__ for name, judge in settings.judges.items()}
    assert set(lists) == set(modules) | {"stages/check"}
    for name, module in modules.items():
        assert {line.partition("  ")[2] for line in lists[name].read_text().splitlines()} == closure(module), name
        done = subprocess.run(["md5sum", "--check", "--quiet", lists[name]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_settings_hold_declarations_alone():
    """No stage depends on them. So there is no function but those that read and check, and no method but validators."""
    for path in (ROOT / "src/vlm_itl/settings").glob("*.py"):
        if path.name in ("reading.py", "everything.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.decorator_list, f"{path.name}: {node.name}"
                assert re.search("validator|property", ast.unparse(node.decorator_list[0])), f"{path.name}: {node.name}"


@pytest.mark.parametrize("name", STAGES)
def test_files_on_the_command_line_are_the_declared_ones(name):
    check_files(STAGES[name], {key: f"${{{key}}}" for key in ("data.root", "detector.config")})


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
            "mask_rcnn": {"torch", "torchvision", "detectron2"},
            "vlm": {"torch", "transformers", "httpx2"},
            "teachers": {"torch", "torchvision", "transformers"},
            "verifier": {"torch", "transformers"},
            "tools": {"torch", "transformers"},
            "checkpoint.py": {"torch", "detectron2"},  # what the trainings of detector and verifier share
        }
        assert heavy <= allowed.get(path.name, allowed.get(path.parent.name, set())), path


def test_light_stages_do_not_load_torch():
    """Run elsewhere, since other tests have loaded it here: judging and counting must not wait for torch."""
    import subprocess
    import sys

    names = [path.stem for path in (ROOT / "stages").glob("*.py") if path.stem not in ("__init__", "check")]
    modules = [f"stages.{n}" for n in names]
    code = f"import sys, importlib; [importlib.import_module(m) for m in {modules}]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", ["params.yaml", "presets/own-data.yaml", "presets/first-study.yaml"])
def test_shipped_settings_can_start(name, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    text = Path(name).read_text()
    if name != "params.yaml":
        (tmp_path / "images").mkdir()
        (tmp_path / "train.json").write_text("{}")
        text = text.replace("/data/mine", str(tmp_path)).replace("annotations/train.json, images: train", "train.json, images: images")
    (tmp_path / "params.yaml").write_text(text)
    assert check(tmp_path / "params.yaml").runs


def test_a_question_has_whom_it_is_asked():
    """A VLM alone has one, and of the calibrated ones each asks what its calibration was fitted on."""
    for judge in load(ROOT / "params.yaml").judges.values():
        assert bool(getattr(judge, "prompt", "")) is isinstance(judge, VlmJudge)


def test_dvcignore_and_lock_settings():
    assert "__pycache__/" in (ROOT / ".dvcignore").read_text()
    assert "dvc.lock -merge" in (ROOT / ".gitattributes").read_text()


def test_the_lock_holds_no_stage_that_is_gone():
    """DVC keeps them, and writes them anew after every stage."""
    from dvc.repo import Repo

    recorded = YAML(typ="safe").load((ROOT / "dvc.lock").read_text())["stages"]
    with Repo(str(ROOT)) as repo:
        assert set(recorded) <= {getattr(stage, "name", None) for stage in repo.index.stages}
