"""What every stage shares: command line, settings, a guard over its inputs, and errors for people.

DVC hashes a stage's dependencies and parameters when the command has ended, not when it reads them. A file edited in between would be
recorded as if it had been used. So a stage takes fingerprints of all it reads, compares them at the end, and fails if one changed.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from inspect import Parameter, signature
from pathlib import Path
from stat import S_ISLNK
from string import Formatter
from typing import Any, NoReturn

from vlm_itl import settings as settings_module
from vlm_itl.core.code import LISTS, ROOT
from vlm_itl.core.code import check as check_code
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import outer_repository, scratch, write_text
from vlm_itl.core.git import git
from vlm_itl.core.redact import line, say

STARTED_NS = time.time_ns()  # this module is the first of the project that a stage imports
PARAMS = Path("params.yaml")
HASHED_BYTES = 64 * 2**20  # larger inputs are compared by size and time of change only


@dataclass(frozen=True)
class File:
    """A file or folder that a stage reads or writes.

    Attributes:
        path: where it lies unless the command line says otherwise. `{option}` is filled from the command line; without that option there
            is no such file. `${section.key}` is a path that params.yaml holds, and no option: DVC cannot quote, and a path may hold
            whatever a shell reads otherwise.
        meaning: for `--help`.
        only_with: an option without which there is no such file, though its path does not name it.
    """

    path: str
    meaning: str
    only_with: str | None = None

    @property
    def setting(self) -> str | None:
        """The key of params.yaml that holds the path."""
        return self.path[2:-1] if self.path.startswith("${") else None

    def at(self, options: Mapping[str, str | None]) -> Path | None:
        """The path with these options, None where there is no such file."""
        needed = {name for _, name, _, _ in Formatter().parse(self.path) if name} | ({self.only_with} if self.only_with else set())
        return Path(self.path.format(**options)) if all(options.get(name) for name in needed) else None


@dataclass(frozen=True)
class Stage:
    """What a stage reads, writes and which settings it uses: the same facts that `dvc.yaml` declares.

    Attributes:
        reads: input files or folders by name. Each is an option `--name PATH`, too.
        writes: outputs, likewise.
        options: plain text options, name -> meaning.
        optional: names of `options`, and of the `reads` and `writes` that are not there without one, that may be left out (then None).
        params: dotted keys of params.yaml; `{option}` is filled from the command line, and the key falls away where it is not given.
        per_run: names of `reads` that are folders with one file a run, with the ending of these files. The files of runs that params.yaml
            no longer has are removed before the stage starts, so that they do not enter DVC's hash of the folder.
        kinds: lists of `vlm_itl.core.code` of what settings choose, beside the stage's own: `detectors/${detector.kind}`;
            `judges/` stands for all judges.
    """

    reads: dict[str, File]
    writes: dict[str, File]
    params: tuple[str, ...]
    options: dict[str, str] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    per_run: dict[str, str] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()

    def parser(self, module: str, doc: str) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=f"python -m {module}",
            description=doc,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"Settings: {', '.join(self.params)} of params.yaml. Usually run by `dvc repro`."
            + "".join(f"\nAlso reads {file.setting}: {file.meaning}." for file in self.reads.values() if file.setting),
        )
        for group, files in (("reads", self.reads), ("writes", self.writes)):
            section = parser.add_argument_group(group)
            for name, file in files.items():
                if not file.setting:
                    section.add_argument(
                        f"--{name.replace('_', '-')}", type=Path, metavar="PATH", help=f"{file.meaning} (else {file.path})"
                    )
        needed = {name for key in self.params for _, name, _, _ in Formatter().parse(key) if name}  # others name paths, which may be said
        for name, meaning in self.options.items():
            parser.add_argument(f"--{name.replace('_', '-')}", required=name in needed - self.optional, help=meaning)
        return parser

    def parse(self, module: str, doc: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """The command line, with the paths that it does not say. Exits with a line where one that is needed cannot be known."""
        parser = self.parser(module, doc)
        arguments = parser.parse_args(argv)
        options = {name: getattr(arguments, name) for name in self.options}
        for name, file in {**self.reads, **self.writes}.items():
            if not file.setting and getattr(arguments, name) is None:
                setattr(arguments, name, file.at(options))
                if getattr(arguments, name) is None and name not in self.optional:
                    parser.error(f"--{name.replace('_', '-')} PATH is needed, or the options in {file.path}")
        return arguments

    def keys(self, arguments: argparse.Namespace) -> tuple[str, ...]:
        """The dotted settings keys that a run with these arguments reads."""
        given = {name for name, value in vars(arguments).items() if value is not None}
        named = {key: {name for _, name, _, _ in Formatter().parse(key) if name} for key in self.params}
        return tuple(key.format(**vars(arguments)) for key in self.params if named[key] <= given)

    def named_by(self, main: Callable[..., None], given: dict[str, Any]) -> dict[str, Any]:
        """All files, and of the options those that are parameters of `main`: the others are in paths."""
        own = signature(main).parameters
        everything = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in own.values())
        return {name: value for name, value in given.items() if everything or name in own or name not in self.options}

    def named_entry(self, message: str, arguments: argparse.Namespace) -> str:
        """An error about `judges` or the like, from code that has one judge's settings and not its name, with `judges.NAME`."""
        for section in {key.partition(".")[0] for key in self.params if "{" in key}:
            entries = [key for key in self.keys(arguments) if key.startswith(f"{section}.")]
            if message.startswith(begin := f"params.yaml: {section}: "):
                return f"params.yaml: {', '.join(entries)}: {message.removeprefix(begin)}"
        return message

    def run(self, main: Callable[..., None], doc: str, argv: Sequence[str] | None = None) -> None:
        """Run `main(**arguments, settings={key: value})`, and exit the process with an error line if it cannot be done.

        Of the options `main` gets those that it names; the others are in paths.
        """
        module = f"stages.{Path(sys.modules[main.__module__].__file__ or main.__module__).stem}"
        arguments = self.parse(module, doc, argv)
        if os.environ.get("DVC_STAGE"):
            with suppress(OSError):
                error_file(os.environ["DVC_STAGE"]).unlink()
        gc.set_threshold(10_000, 10, 10)  # importing torch makes a million objects that stay: look through them less often
        try:
            self._run(main, arguments, module)
        except UserError as error:
            fail(str(error))
        except KeyboardInterrupt:
            sys.exit(130)
        except OSError as error:
            if error.strerror is None:
                raise
            fail(f"{error.filename or module}: {error.strerror}")
        finally:
            gc.freeze()  # nor once more when the process ends

    def code(self, module: str, fill: Callable[[str], str]) -> list[Path]:
        """Lists of the code that this stage uses: its own, and of the kinds that settings and options choose.

        Args:
            fill: gives a path of `kinds` with its values.
        """
        if any(Path(file.path) == LISTS for file in self.writes.values()):  # it is about to write them
            return []
        paths = (module.replace(".", "/"), *map(fill, self.kinds))
        return [LISTS / (path if path.endswith("/") else f"{path}.md5") for path in paths]

    def _run(self, main: Callable[..., None], arguments: argparse.Namespace, module: str) -> None:
        keys = self.keys(arguments)
        settings = settings_module.check(PARAMS)
        refuse_a_shallow_clone()
        chosen = {key: settings_module.pick(settings, key) for key in keys}
        named = {name: Path(settings_module.pick(settings, file.setting)) for name, file in self.reads.items() if file.setting}
        given = vars(arguments) | named
        if os.environ.get("DVC_STAGE"):  # by hand, nobody records what ran
            check_code(self.code(module, lambda path: filled(path, settings, vars(arguments))))
        inputs = [given[name] for name in self.reads if given[name] is not None]
        outputs = [given[name] for name in self.writes if given[name] is not None]
        for path in inputs:
            if not path.exists():
                raise UserError(f"{path}: no such file or folder; `dvc repro` makes what earlier stages write")
        for name, ending in self.per_run.items():
            remove_files_of_other_runs(given[name], ["start", *settings.runs], ending)
        before = {path: fingerprint(path) for path in inputs}
        for path in outputs:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            main(**self.named_by(main, given), settings=chosen)
        except UserError as error:
            raise UserError(self.named_entry(str(error), arguments)) from None
        changed = [str(path) for path in inputs if not same(path, before[path])]
        changed += edited_modules()
        try:
            after = settings_module.load(PARAMS)
            changed += [f"params.yaml: {key}" for key in keys if settings_module.pick(after, key) != chosen[key]]
        except UserError as error:
            changed.append(str(error))
        if changed:
            for path in outputs:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            raise UserError(f"{', '.join(changed)}: changed while the stage ran, so its result is discarded; run it again")


def filled(path: str, settings: settings_module.Settings, options: Mapping[str, Any]) -> str:
    """A path of `Stage.kinds` with its values: `${section.key}` from settings, `{option}` from the command line."""
    return re.sub(r"\$\{([^}]*)\}", lambda key: str(settings_module.pick(settings, key[1])), path).format(**options)


def fail(message: str) -> NoReturn:
    """End the process with an error line, which `vlm_itl.experiments.repro` says again when all other stages have run."""
    message = line(message)  # file names are strangers' text
    if os.environ.get("DVC_STAGE"):
        with suppress(OSError):
            write_text(error_file(os.environ["DVC_STAGE"]), message)
    sys.exit(f"error: {message}")


def error_file(stage: str) -> Path:
    """Where the last error of a stage stands, by DVC's name for the stage."""
    return scratch() / "errors" / f"{stage}.txt"


def refuse_a_shallow_clone() -> None:
    """Raises:
    UserError: this is a queued experiment of a shallow clone. It would run to its end, "Success", and then DVC would lose it, since git
        fetches no commit from there.
    """
    outer = outer_repository()
    if outer and git("rev-parse", "--is-shallow-repository", repository=outer) == "true":
        raise UserError(f"{outer}: a shallow clone loses the results of queued experiments; fetch the rest first: git fetch --unshallow")


def remove_files_of_other_runs(folder: Path, runs: list[str], ending: str) -> None:
    """Leave of the files with this ending those that are named by a run."""
    for path in sorted(folder.glob(f"*{ending}")):
        if path.name.removesuffix(ending) not in runs:
            path.unlink()
            say(f"removed {path}: params.yaml has no such run")


def fingerprint(path: Path) -> tuple[Any, str | None]:
    """(sizes and times of change, md5 of the content or None for folders and large files)."""
    if path.is_dir():
        entries = []
        for folder, _, names in os.walk(path):
            for name in names:
                stat = os.lstat(os.path.join(folder, name))  # a link may lead nowhere
                if S_ISLNK(stat.st_mode):
                    with suppress(OSError):
                        stat = os.stat(os.path.join(folder, name))
                entries.append((os.path.join(folder, name), stat.st_size, stat.st_mtime_ns))
        return sorted(entries), None
    stat = path.stat()
    content = hashlib.md5(path.read_bytes()).hexdigest() if stat.st_size <= HASHED_BYTES else None
    return (stat.st_size, stat.st_mtime_ns), content


def same(path: Path, before: tuple[Any, str | None]) -> bool:
    """Whether `path` still has the content it had; a file that was only touched counts as the same."""
    if not path.exists():
        return False
    after = fingerprint(path)
    return after[0] == before[0] if before[1] is None else after[1] == before[1]


def edited_modules() -> list[str]:
    """Modules of this project that were loaded and have changed on disk since the process started."""
    edited = set()  # multiprocessing gives the main module a second name
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        if not name or not name.endswith(".py"):
            continue
        path = Path(name).resolve()
        if not (path.is_relative_to(ROOT / "src") or path.is_relative_to(ROOT / "stages")):
            continue
        if not path.exists() or path.stat().st_mtime_ns > STARTED_NS:
            edited.add(str(path.relative_to(ROOT)))
    return sorted(edited)
