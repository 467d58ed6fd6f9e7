"""The command `vlm-itl`: what a user runs besides DVC's own commands."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

COMMANDS = {  # name: module with `main(argv)`, and what it does
    "repro": ("experiments.repro", "run the experiment, stages side by side"),
    "report": ("report.summary", "print the table and the answers"),
    "review": ("review.command", "let people decide on proposals in a browser"),
    "export": ("drawing.exporting", "write what waits to be drawn in a run for CVAT and Label Studio"),
    "import": ("drawing.importing", "take what people drew back"),
    "page": ("report.page", "write the page of the outputs that are there"),
    "study": ("report.study", "tables of all experiments of a commit, and verdicts over seeds"),
    "audit": ("review.audit", "show people a sample of what a run's judge decided, and count how much is right"),
    "dataset": ("dataset.writing", "write a run's labels and pictures as a data set for other programs"),
    "sweep": ("experiments.sweep", "run the experiment for several seeds"),
    "settings": ("tools.settings_table", "print all settings with their meaning, or write docs/settings.md"),
    "picture": ("report.figures.overview", "draw README's picture again"),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="vlm-itl", description=__doc__, epilog="vlm-itl COMMAND --help: the options of one")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, words) in COMMANDS.items():
        commands.add_parser(name, help=words, add_help=False)
    chosen, rest = parser.parse_known_args(argv)
    try:
        import_module(f"{__package__}.{COMMANDS[chosen.command][0]}").main(rest)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
