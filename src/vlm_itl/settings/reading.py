"""Reading `params.yaml`: one-line errors that name the key, and what can be known before any work.

The file is read with the YAML 1.2 parser that DVC uses, so that both see the same values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError

from vlm_itl.core.errors import UserError
from vlm_itl.core.fields import Model
from vlm_itl.core.files import read_regular
from vlm_itl.core.redact import printable
from vlm_itl.detectors.mask_rcnn.shipped import drawn_weights
from vlm_itl.judges.vlm.settings import VlmJudge, is_model_of
from vlm_itl.registry import JUDGES, SOURCES, TEACHERS
from vlm_itl.settings.everything import Settings
from vlm_itl.settings.teachers import Results, Sam3

if TYPE_CHECKING:
    from vlm_itl.data.source import Source

MOST_VALUES = 100_000  # of a YAML file, with every alias written out; params.yaml has some hundreds
TEMPLATE = re.compile(r"\$\{([^}]*)\}")  # of dvc.yaml
MISSING = object()


def read_yaml(path: Path) -> Any:
    """Parse a YAML 1.2 file.

    Raises:
        UserError: the file is missing, cannot be read or is not YAML, or its aliases make too much of it ("billion laughs").
    """
    try:
        content = YAML(typ="safe", pure=True).load(
            read_regular(path).decode("utf-8")
        )  # libyaml, if it is there, ends the process on deep nests
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (run this from the repository's top folder)") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except DuplicateKeyError as error:
        key = re.sub(r'found duplicate (?:merge )?key "(.*?)"( with value .*)?', r"\1", str(error.problem), flags=re.DOTALL)
        line, first = (mark.line + 1 for mark in (error.problem_mark, error.context_mark))
        raise UserError(
            f"{path}: line {line}: duplicate key '{key}' in the mapping that begins in line {first}; keep one of them"
        ) from None
    except RecursionError:
        raise UserError(f"{path}: not YAML for this program: its values are nested too deeply") from None
    except Exception as error:  # ruamel raises whatever a wrong date, number or tag stumbles over, beside its own errors
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split()) or type(error).__name__}") from None
    if _values(content, {}) > MOST_VALUES:
        raise UserError(f"{path}: more than {MOST_VALUES:,} values with its aliases (*name) written out, or an alias within itself")
    return content


def _values(content: Any, known: dict[int, int]) -> int:
    """How many values `content` holds with every alias written out; more than `MOST_VALUES` is not counted on, as where it holds itself."""
    if not isinstance(content, dict | list | tuple):
        return 1
    if id(content) not in known:
        known[id(content)] = MOST_VALUES + 1  # as long as it is looked through
        parts = [*content, *content.values()] if isinstance(content, dict) else content
        known[id(content)] = min(MOST_VALUES + 1, 1 + sum(_values(part, known) for part in parts))
    return known[id(content)]


def _texts(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of every text in `content`."""
    if isinstance(content, str):
        yield key, content
    elif isinstance(content, dict | list | tuple):
        for name, part in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _texts(part, f"{key}.{name}" if key else str(name))


def load(path: Path = Path("params.yaml")) -> Settings:
    """Read and check all of `params.yaml`.

    Raises:
        UserError: one line that names the first offending key.
    """
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a mapping of sections is expected")
    for key, text in _texts(raw):
        if "\0" in text:
            raise UserError(f"{path}: {key}: {text!r} holds a zero character, which no file, address or command line can")
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        # a discriminated union puts its tag into the location; the user's file has no such key
        kinds = {*JUDGES, *TEACHERS}
        loc = [printable(str(part)) for part in first["loc"] if part != "[key]"]
        if len(loc) > 2 and loc[0] in ("judges", "autolabels") and loc[2] in kinds:
            del loc[2]
        message = first["msg"].removeprefix("Value error, ")
        # an address with a user may hold a password
        secret = "://" in str(first["input"]) and "@" in str(first["input"])
        given = "" if isinstance(first["input"], (dict, list)) or secret else f" (it says {first['input']!r})"
        if first["type"] == "extra_forbidden":
            message, given = "unknown key", ""
        raise UserError(f"{path}: {'.'.join(loc)}: {message}{given}") from None
    problem = settings.check_runs()
    if problem:
        raise UserError(f"{path}: {problem[0]}: {problem[1]}")
    if PurePosixPath(settings.detector.config).suffix not in {".yaml", ".yml"}:
        raise UserError(f"{path}: detector.config: a Detectron2 YAML file is expected ({settings.detector.config!r})")
    return settings


def pick(settings: Settings, key: str) -> Any:
    """The value at a dotted key: a section, a key of a section, one judge or one run.

    Raises:
        UserError: there is no such judge or run.
    """
    section, _, name = key.partition(".")
    value = getattr(settings, section)
    if not name:
        return value
    if isinstance(value, Model):
        return getattr(value, name)
    if name not in value:
        raise UserError(f"params.yaml: {section}: no '{name}' (there are: {', '.join(value)})")
    return value[name]


def wanted(graph: dict[str, Any], raw: dict[str, Any]) -> list[str]:
    """The dotted keys of params.yaml that DVC looks up. It knows none of the defaults above.

    Args:
        graph: content of dvc.yaml.
        raw: content of params.yaml.
    """
    keys: list[str] = []
    for stage in graph["stages"].values():
        rounds: list[dict[str, Any]] = [{}]
        if "foreach" in stage:
            (section,) = TEMPLATE.findall(stage["foreach"])
            keys.append(section)
            over = raw.get(section) or {}
            rounds = [{"key": k, "item": v} for k, v in over.items()] if isinstance(over, dict) else [{"item": v} for v in over]
        body = stage.get("do", stage)
        keys += [key for key in TEMPLATE.findall(str(body)) if key.split(".")[0] not in ("key", "item")]
        for given in rounds:
            keys += [TEMPLATE.sub(partial(_filled, given), key) for key in body.get("params", [])]
    return list(dict.fromkeys(keys))


def _filled(given: dict[str, Any], template: re.Match[str]) -> str:
    return str(_value(given, template[1]))


def _value(content: Any, key: str) -> Any:
    """What stands at a dotted key, `MISSING` where nothing does."""
    for part in key.split("."):
        if not isinstance(content, dict) or part not in content:
            return MISSING
        content = content[part]
    return content


def needed_files(settings: Settings) -> Iterator[tuple[str, str]]:
    """(key, problem) for each file or folder that the settings name, that no stage makes and that is not there."""
    s, data = settings.detector, settings.data
    if not Path(s.config).is_file():
        yield "detector.config", f"no such file: {s.config}"
    if s.init == "drawn" and not s.weights and not Path(drawn := drawn_weights(s.config)).is_file():
        make = f"`python -m vlm_itl.tools.drawn_start --config {s.config}` makes it"
        yield "detector.init", f"drawn: no such file: {drawn}; {make}, or use init: scratch"
    if s.weights and "://" not in s.weights and not Path(s.weights).is_file():
        yield "detector.weights", f"no such file: {s.weights}"
    data_source: type[Source] = resolve_name(SOURCES[data.source])
    yield from data_source(data).check()
    asked = {run.judge: f"runs.{name}.judge" for name, run in settings.runs.items()}
    asked |= dict.fromkeys(settings.probed, "probed")
    for name, verifier in settings.verifiers.items():
        asked |= {name: f"verifiers.{name}", verifier.base: f"verifiers.{name}.base"}
    for name, key in asked.items():
        judge, folder = settings.judges[name], Path("judges") / name
        calibrated = isinstance(judge, VlmJudge) and judge.calibrated
        if not folder.is_dir() and not calibrated:  # of a calibrated one the stage that writes its calibration makes it
            make = f"mkdir -p {folder} && touch {folder}/.gitkeep"
            yield key, f"the judge '{name}' has no folder, which DVC needs though it be empty; `{make}` makes it"
        if isinstance(judge, VlmJudge) and not calibrated and not judge.prompt.strip():
            # a calibrated judge asks what the probed one was asked
            yield f"judges.{name}.prompt", f"the judge '{name}' has no question; write one (docs/guides/vlm-judges.md)"
        trained_here = isinstance(judge, VlmJudge) and any(is_model_of(verifier, judge.model) for verifier in settings.verifiers)
        if isinstance(judge, VlmJudge) and judge.backend == "transformers" and not trained_here:
            yield from _model(f"judges.{name}.model", judge.model, judge.revision)
    for name, teacher in settings.autolabels.items():
        if isinstance(teacher, Results):
            for key, path in (("file", teacher.file), ("images", teacher.images)):
                if path is not None and not (Path(data.root) / path).is_file():
                    yield f"autolabels.{name}.{key}", f"no such file: {Path(data.root) / path}"
        elif isinstance(teacher, Sam3):
            yield from _model(f"autolabels.{name}.model", teacher.model, teacher.revision)
        else:
            yield from _model(f"autolabels.{name}.detector", teacher.detector, teacher.detector_revision)
            yield from _model(f"autolabels.{name}.segmenter", teacher.segmenter, teacher.segmenter_revision)


def _model(key: str, model: str, revision: str | None) -> Iterator[tuple[str, str]]:
    if not Path(model).is_dir() and not re.fullmatch("[0-9a-f]{40}", revision or ""):
        yield key, f"{model} is no folder here, so it is a hub id; pin its revision to a commit (40 hex digits), now {revision!r}"


def check(path: Path = Path("params.yaml"), graph: Path = Path("dvc.yaml")) -> Settings:
    """What can be known before any work: `load`, that the keys stand there that DVC will want, and that the files named are there.

    Away from a repository's top folder, where there is no dvc.yaml, only `load`.

    Raises:
        UserError: one line that names the key and what is missing.
    """
    settings = load(path)
    if not graph.exists():
        return settings
    raw = read_yaml(path)
    missing = [key for key in wanted(read_yaml(graph), raw) if _value(raw, key) is MISSING]
    if missing:
        lines = {key: json.dumps(TypeAdapter(Any).dump_python(pick(settings, key), mode="json")) for key in missing}
        add = ", ".join(f"`{key.rpartition('.')[2]}: {value}`" + (f" to {key.rpartition('.')[0]}" if "." in key else "")
                        for key, value in lines.items())  # fmt: skip
        raise UserError(f"{path}: {', '.join(missing)}: DVC watches these keys, so the file has to say them, defaults too; add {add}")
    try:
        for key, problem in needed_files(settings):
            raise UserError(f"{path}: {key}: {problem}")
    except OSError as error:  # a name too long, a folder that may not be looked into
        raise UserError(f"{path}: {error.filename}: {error.strerror}") from None
    return settings


def main() -> None:
    """Check params.yaml and what it needs before `dvc repro` starts: `python -m vlm_itl.settings.reading`."""
    try:
        check()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
