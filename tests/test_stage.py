"""What every stage does around its work: settings, errors for people, and the guard against edits under way."""

from __future__ import annotations

import os
import shutil
import sys
import types
from pathlib import Path

import pytest
from conftest import ROOT

from vlm_itl.base import stage as stage_module
from vlm_itl.base.errors import UserError
from vlm_itl.base.stage import Stage

STAGE = Stage(
    reads={"source": "text", "extra": "text or folder"},
    writes={"result": "text"},
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


def test_module_edited_under_way_discards_the_result(here, monkeypatch):
    """The project's own code is an input like any other."""
    module = here / "src" / "fresh.py"
    module.parent.mkdir()
    module.write_text("x = 1")
    os.utime(module, (1, 1))
    fresh = types.ModuleType("fresh")
    fresh.__file__ = str(module)
    monkeypatch.setitem(sys.modules, "fresh", fresh)
    monkeypatch.setattr(stage_module, "ROOT", here)
    run(write)
    with pytest.raises(SystemExit, match=r"src/fresh\.py: changed while the stage ran"):
        run(lambda **given: (write(**given), module.write_text("x = 2")))


@pytest.mark.parametrize("name", ["download", "split", "train", "predict", "judge", "update", "evaluate", "compare", "report"])
def test_help(name, capsys):
    import importlib

    module = importlib.import_module(f"stages.{name}")
    with pytest.raises(SystemExit) as stop:
        module.STAGE.run(module.main, module.__doc__, ["--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    assert module.__doc__.splitlines()[0] in out
    assert all(f"--{n.replace('_', '-')}" in out for n in [*module.STAGE.reads, *module.STAGE.writes])
    assert f"python -m stages.{name}" in out
