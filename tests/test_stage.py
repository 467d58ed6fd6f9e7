"""What every stage does around its work: settings, errors for people, and the guard against edits under way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, dataset

from vlm_itl.core.code import listing
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import write_json, write_text
from vlm_itl.pipeline import stage as stage_module
from vlm_itl.pipeline.stage import File, Stage

STAGE = Stage(
    reads={"source": File("no/default", "text"), "extra": File("{nobody}", "text or folder")},
    writes={"result": File("out/{judge}.txt", "text")},
    options={"judge": "a judge"},
    optional=frozenset({"extra"}),
    params=("judges.{judge}", "seed"),
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "in.txt").write_text("one")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(main, *more: str):
    STAGE.run(main, "doc", ["--source", "in.txt", "--result", "deep/er/out.txt", "--judge", "human", *more])


def write(source, extra, result, judge, settings):
    result.write_text(source.read_text())


def test_a_key_without_its_option_falls_away(here):
    stage = Stage(
        reads={}, writes={}, options={"first": "", "other": ""}, optional=frozenset({"other"}), params=("{first}", "{other}", "seed")
    )
    parser = stage.parser("x", "doc")
    assert stage.keys(parser.parse_args(["--first", "train"])) == ("train", "seed")
    assert stage.keys(parser.parse_args(["--first", "train", "--other", "pretrain"])) == ("train", "pretrain", "seed")


def test_gives_only_declared_settings(here):
    given = {}

    def main(settings, **rest):
        given.update(settings)
        rest["result"].write_text("done")

    run(main)
    assert set(given) == {"judges.human", "seed"}
    assert (here / "deep/er/out.txt").read_text() == "done"


def test_error_is_one_line_and_exit_status(here, capsys):
    def main(**_):
        raise UserError("in.txt: no good")

    with pytest.raises(SystemExit) as stop:
        run(main)
    assert stop.value.code == "error: in.txt: no good"


def test_an_error_about_a_section_names_the_entry_that_the_stage_was_given(here):
    def main(**_):
        raise UserError("params.yaml: judges: model: x was taught birds")

    with pytest.raises(SystemExit) as stop:
        run(main)
    assert stop.value.code == "error: params.yaml: judges.human: model: x was taught birds"
    both = Stage(reads={}, writes={}, options={"judge": "", "base": ""}, params=("judges.{judge}", "judges.{base}", "runs"))
    with pytest.raises(SystemExit) as stop:
        both.run(main, "doc", ["--judge", "human", "--base", "vlm"])
    assert stop.value.code == "error: params.yaml: judges.human, judges.vlm: model: x was taught birds"


def test_missing_input_is_named(here):
    (here / "in.txt").unlink()
    with pytest.raises(SystemExit, match=r"error: in.txt: no such file or folder"):
        run(write)


def test_unknown_judge_is_named(here):
    with pytest.raises(SystemExit, match=r"error: params.yaml: judges: no 'nobody' \(there are: human, "):
        STAGE.run(write, "doc", ["--source", "in.txt", "--result", "out.txt", "--judge", "nobody"])


def test_wrong_settings_anywhere_stop_before_work(here):
    text = (here / "params.yaml").read_text()
    (here / "params.yaml").write_text(text.replace("min_area:", "min_aera:"))
    with pytest.raises(SystemExit, match=r"select\.min_aera: unknown key"):
        run(write)
    assert not (here / "deep").exists()


def test_file_system_errors_name_the_file(here):
    def main(result, **_):
        (result / "x").write_text("")

    with pytest.raises(SystemExit, match=r"error: deep/er/out.txt/x: No such file"):
        run(main)


def test_programming_errors_keep_their_traceback(here):
    def main(**_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main)


def edit_source(here: Path) -> None:
    (here / "in.txt").write_text("two")


def edit_folder(here: Path) -> None:
    (here / "folder" / "new").write_text("")


def delete_source(here: Path) -> None:
    (here / "in.txt").unlink()


def edit_used_setting(here: Path) -> None:
    text = (here / "params.yaml").read_text()
    assert "human: {kind: human, iou: 0.6}" in text
    (here / "params.yaml").write_text(text.replace("human: {kind: human, iou: 0.6}", "human: {kind: human, iou: 0.7}"))


def break_settings(here: Path) -> None:
    (here / "params.yaml").write_text("][")


CHANGES = {
    edit_source: r"in\.txt: changed while the stage ran",
    delete_source: r"in\.txt: changed while the stage ran",
    edit_folder: r"folder: changed while the stage ran",
    edit_used_setting: r"params\.yaml: judges\.human: changed while the stage ran",
    break_settings: r"params\.yaml: not YAML",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_edit_under_way_discards_the_result(here, change):
    (here / "folder").mkdir()

    def main(source, result, **_):
        result.write_text(source.read_text())
        change(here)

    with pytest.raises(SystemExit, match=CHANGES[change]):
        run(main, "--extra", "folder")
    assert not (here / "deep/er/out.txt").exists()


def test_other_settings_and_touching_are_no_edit(here):
    def main(source, result, **_):
        result.write_text(source.read_text())
        text = (here / "params.yaml").read_text()
        (here / "params.yaml").write_text(text.replace("epochs: 3,", "epochs: 5,"))
        os.utime(source, (1, 1))

    run(main)
    assert (here / "deep/er/out.txt").read_text() == "one"


EDITOR = """
import os, sys
def hook(event, args, done=[]):
    if event == "open" and not done and os.path.basename(str(args[0])).startswith(".unseen.json"):
        done.append(1)
        with open(os.environ["EDITED"], "a") as module:
            module.write("# edited\\n")
sys.addaudithook(hook)
"""


@pytest.mark.parametrize("module", ["stages/hold_back.py", "src/vlm_itl/verifier/held_back.py", "src/vlm_itl/pipeline/stage.py", None])
def test_module_edited_under_way_discards_the_result(here, module):
    """The project's own code is an input like any other: a real stage, in a copy of the repository, edited while it writes."""
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, here / name, ignore=shutil.ignore_patterns("__pycache__"))
    (here / "hook").mkdir()
    (here / "hook/sitecustomize.py").write_text(EDITOR)
    (here / "other.py").write_text("")
    write_json(here / "labels.json", dataset({k: [1] for k in range(1, 9)}))
    files = [word for kind in ("detector", "unseen", "fit", "held-out") for word in (f"--{kind}", f"out/{kind}.json")]
    done = subprocess.run(
        [sys.executable, "-m", "stages.hold_back", "--labels", "labels.json", *files], cwd=here, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": "hook", "PYTHONDONTWRITEBYTECODE": "1", "EDITED": module or "other.py"},
    )  # fmt: skip
    if module:
        assert done.stderr == f"error: {module}: changed while the stage ran, so its result is discarded; run it again\n"
        assert (done.returncode, list((here / "out").iterdir())) == (1, [])
    else:
        assert done.returncode == 0, done.stderr
        assert len(list((here / "out").iterdir())) == 4


def test_a_link_that_leads_nowhere_is_no_edit(here):
    """Data folders hold such links; DVC says of its own accord what it cannot hash."""
    (here / "folder").mkdir()
    (here / "folder/link").symlink_to("nowhere")
    run(write, "--extra", "folder")
    with pytest.raises(SystemExit, match="folder: changed"):
        run(lambda **given: (write(**given), (here / "folder/link").unlink()), "--extra", "folder")


def test_files_of_runs_that_are_gone_are_removed(here, capsys):
    """What DVC hashes of a folder with one file a run is what the runs of params.yaml have."""
    for name in ("start.json", "human-1.json", "tried-\x1b[2J.json", "notes.txt"):
        (here / "metrics" / name).parent.mkdir(exist_ok=True)
        (here / "metrics" / name).write_text(name)
    seen = []
    stage = Stage(
        reads={"folder": File("x", "a file a run")}, writes={"result": File("y", "")}, params=("runs",), per_run={"folder": ".json"}
    )
    main = lambda folder, result, settings: (seen.extend(sorted(p.name for p in folder.iterdir())), result.write_text(""))  # noqa: E731
    main.__module__ = __name__
    stage.run(main, "doc", ["--folder", "metrics", "--result", "out.txt"])
    assert seen == ["human-1.json", "notes.txt", "start.json"]
    assert capsys.readouterr().out == "removed metrics/tried-\\x1b[2J.json: params.yaml has no such run\n"


def test_a_path_that_a_setting_names_is_read_and_watched(here):
    stage = Stage(reads={"config": File("${detector.config}", "a YAML")}, writes={"result": File("y", "")}, params=("detector",))
    text = (here / "params.yaml").read_text()
    (here / 'it\'s a "$(touch executed)" `touch executed`; #.yaml').write_text("one")
    (here / "params.yaml").write_text(
        text.replace("configs/mask_rcnn_thin_R_18_FPN.yaml", "'it''s a \"$(touch executed)\" `touch executed`; #.yaml'")
    )

    def main(config, result, settings):
        result.write_text(config.read_text())

    stage.run(main, "doc", ["--result", "out.txt"])
    assert (here / "out.txt").read_text() == "one"
    with pytest.raises(SystemExit, match="changed while the stage ran"):
        stage.run(lambda config, result, settings: config.write_text("two"), "doc", ["--result", "out.txt"])
    (here / 'it\'s a "$(touch executed)" `touch executed`; #.yaml').unlink()
    with pytest.raises(SystemExit, match=r"error: it's a .*: no such file or folder"):
        stage.run(main, "doc", ["--result", "out.txt"])


def test_an_error_is_kept_for_the_last_words(here, monkeypatch):
    """`vlm_itl.experiments.repro` says it again; a stage that then succeeds, or dies otherwise, leaves none."""
    monkeypatch.setenv("DVC_STAGE", "judge@human-1")
    monkeypatch.delenv("VLM_ITL_SCRATCH", raising=False)

    def main(**_):
        raise UserError("in.txt: no good")

    with pytest.raises(SystemExit):
        run(main)
    assert stage_module.error_file("judge@human-1").read_text() == "in.txt: no good"
    run(write)
    assert not stage_module.error_file("judge@human-1").exists()


@pytest.mark.parametrize("depth", [1, 3])
def test_a_queued_experiment_of_a_shallow_clone_is_refused(here, tmp_path, monkeypatch, depth):
    """DVC would run it, say Success, and lose it."""
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "init", "-q", "origin"], check=True)
    for k in range(2):
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", str(k)], cwd="origin", check=True)
    subprocess.run(["git", "clone", "-q", "--depth", str(depth), f"file://{tmp_path}/origin", "clone"], check=True)
    work = here / "clone/.dvc/tmp/exps/standalone/tmp1"
    work.mkdir(parents=True)
    for name in ("params.yaml", "in.txt"):
        shutil.copy(here / name, work / name)
    monkeypatch.chdir(work)
    if depth == 1:
        with pytest.raises(SystemExit, match=r"error: .*clone: a shallow clone loses the results .*: git fetch --unshallow"):
            run(write)
    else:
        run(write)
        assert (work / "deep/er/out.txt").exists()


@pytest.mark.parametrize("name", ["download", "split", "train", "predict", "judge", "update", "evaluate", "compare", "report"])
def test_help(name, capsys):
    import importlib

    module = importlib.import_module(f"stages.{name}")
    with pytest.raises(SystemExit) as stop:
        module.STAGE.run(module.main, module.__doc__, ["--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    assert module.__doc__.splitlines()[0] in out
    for kind in (*module.STAGE.reads, *module.STAGE.writes):
        file = {**module.STAGE.reads, **module.STAGE.writes}[kind]
        assert (file.setting or f"--{kind.replace('_', '-')}") in out
    assert f"python -m stages.{name}" in out


def test_paths_follow_from_the_options_unless_they_are_said(here):
    stage = Stage(
        reads={"source": File("in/{run}.txt", ""), "test": File("test.txt", "", "run"), "old": File("in/{prev}.txt", "")},
        writes={"result": File("out/{run}.txt", "")},
        options={"run": "", "prev": ""},
        optional=frozenset({"run", "prev", "test", "old"}),
        params=(),
    )

    def paths(*words):
        given = stage.parse("x", "doc", words)
        return [given.source, given.test, given.old, given.result]

    assert paths("--run", "a") == [Path("in/a.txt"), Path("test.txt"), None, Path("out/a.txt")]
    assert paths("--run", "a", "--prev", "b", "--source", "s") == [Path("s"), Path("test.txt"), Path("in/b.txt"), Path("out/a.txt")]
    assert paths("--source", "s", "--result", "r") == [Path("s"), None, None, Path("r")]


def test_a_path_that_no_option_gives_is_asked_for(here, capsys):
    with pytest.raises(SystemExit) as stop:
        Stage(reads={"source": File("in/{run}.txt", "")}, writes={}, options={"run": ""}, params=()).run(write, "doc", [])
    assert stop.value.code == 2
    assert "--source PATH is needed, or the options in in/{run}.txt" in capsys.readouterr().err


def test_a_stage_refuses_other_code_than_was_listed(here, monkeypatch):
    """DVC records the list; what runs has to be what it says."""
    lists = here / "artifacts/code/stages/test_stage.md5"
    monkeypatch.setenv("DVC_STAGE", "x")
    write_text(lists, listing([ROOT / "src/vlm_itl/core/errors.py"]))
    run(write)
    whole = lists.read_text()
    for text in ("", "x\n", "0" * 32 + "  ../../etc/passwd.py\n", "0" * 32 + "  /etc/passwd\n"):
        write_text(lists, text)
        with pytest.raises(SystemExit, match=r"error: artifacts/code/stages/test_stage\.md5: no list of code; `dvc repro` lists it anew"):
            run(write)
    lists.write_bytes(b"\xff\n")
    with pytest.raises(SystemExit, match=r"error: artifacts/code/stages/test_stage\.md5: 'utf-8' codec"):
        run(write)
    lists.unlink()
    os.mkfifo(lists)
    with pytest.raises(SystemExit, match=r"error: artifacts/code/stages/test_stage\.md5: not a regular file"):
        run(write)
    lists.unlink()
    write_text(lists, whole + "0" * 32 + "  src/vlm_itl/core/files.py\n")
    with pytest.raises(SystemExit, match=r"error: src/vlm_itl/core/files.py: changed since .*; run `dvc repro`"):
        run(write)
