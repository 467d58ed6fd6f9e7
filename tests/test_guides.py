"""Commands of README and docs/guides: pages open with one, and each names what is there and makes settings that can start."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import ROOT
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from ruamel.yaml import YAML

from vlm_itl.__main__ import COMMANDS
from vlm_itl.settings import load
from vlm_itl.settings.reading import check, needed_files

yaml = YAML(typ="safe")
GUIDES = sorted((ROOT / "docs/guides").glob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """The words of every command in the page's shell blocks."""
    found = []
    for language, block in FENCE.findall(page.read_text()):
        if language == "sh":
            for line in block.replace("\\\n", " ").splitlines():
                lexer = shlex.shlex(line, posix=True, punctuation_chars="&;")
                lexer.whitespace_split, words = True, [[]]
                for word in lexer:
                    if word in ("&&", ";"):
                        words.append([])
                    else:
                        words[-1].append(word)
                found += [one for one in words if one]
    return found


EVERY = [(page.name, words) for page in [ROOT / "README.md", *GUIDES] for words in commands(page)]
EXPERIMENTS = [(name, words) for name, words in EVERY if words[:3] == ["dvc", "exp", "run"]]


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_a_guide_opens_with_a_command(page):
    """Before the reader has scrolled, and before any settings to write by hand."""
    text = page.read_text()
    opening = FENCE.search(text)
    assert opening
    assert opening[1] == "sh"
    assert text[: opening.start()].count("\n") <= 10


def test_guides_name_what_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for _, words in EVERY if words[0] == "make" for word in words[1:] if "=" not in word}
    assert named
    assert named <= targets
    assert {words[1] for _, words in EVERY if words[0] == "vlm-itl"} <= set(COMMANDS)
    for page in [ROOT / "README.md", *GUIDES]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
        for preset in re.findall(r"presets/[\w.-]+", page.read_text()):
            assert (ROOT / preset).exists(), f"{page.name} names {preset}"


@pytest.mark.parametrize(("name", "words"), EXPERIMENTS, ids=[f"{name}-{k}" for k, (name, _) in enumerate(EXPERIMENTS)])
def test_an_experiment_of_a_guide_can_start(name, words, tmp_path, monkeypatch):
    """DVC's own code writes its settings into a copy of params.yaml, which then names nothing that is missing, but models to download."""
    monkeypatch.chdir(ROOT)
    assert words[3] == "dvc.yaml", "without a target DVC asks COCO's server"
    overrides = [words[k + 1] for k, word in enumerate(words) if word == "-S"]
    for values in get_hydra_sweeps({"params.yaml": overrides}):
        shutil.copy(ROOT / "params.yaml", tmp_path)
        before = load(tmp_path / "params.yaml")
        apply_overrides(tmp_path / "params.yaml", values["params.yaml"])
        settings = load(tmp_path / "params.yaml")
        assert settings != before
        assert [key for key, _ in needed_files(settings) if not key.startswith("autolabels.")] == []


def test_the_preset_for_coco_can_start(monkeypatch):
    monkeypatch.chdir(ROOT)
    settings = check(Path("presets/coco2017.yaml"))
    assert settings.data.source == "coco2017"
    (out,) = re.findall(r"^- path: (data/.*)$", (ROOT / "data.dvc").read_text(), re.MULTILINE)
    assert Path(settings.data.root) == Path(out).parent
    # the guide shows the preset's own values
    shown = [yaml.load(block) for language, block in FENCE.findall((ROOT / "docs/guides/coco2017.md").read_text()) if language == "yaml"]
    written = yaml.load(Path("presets/coco2017.yaml").read_text())
    assert shown
    for block in shown:
        for section, values in block.items():
            assert values.items() <= written[section].items()


@pytest.mark.parametrize("name", ["own-data", "coco2017"])
def test_the_vlm_of_a_preset_can_be_uncommented(name, tmp_path):
    text = (ROOT / f"presets/{name}.yaml").read_text()
    path = tmp_path / "params.yaml"
    path.write_text(re.sub(r"^  #( masks|   |$)", lambda mark: mark[0].replace("# ", "").replace("#", ""), text, flags=re.MULTILINE))
    settings = load(path)
    assert settings.runs["masks-1"].judge == "masks"
    assert "{options}" in settings.judges["masks"].prompt
