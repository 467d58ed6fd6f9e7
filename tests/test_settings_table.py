"""docs/settings.md: made from the settings' own types and docstrings, complete, and up to date."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from conftest import ROOT
from pydantic import Field

from vlm_itl.core.fields import Model, Name, Probability, Seed
from vlm_itl.settings import read_yaml
from vlm_itl.tools.settings_table import main, page, tables


class Box(Model):
    """What it sleeps in."""

    lined: bool = True
    """Whether it is soft."""


class Cat(Model):
    """One that purrs."""

    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=1, le=9)] = 9
    """How often it may fall."""
    box: Box = Field(default_factory=Box)


class Fish(Model):
    kind: Literal["carp", "koi"]


class Bowl(Model):
    """What a fish is in."""

    litres: Annotated[float, Field(gt=0)]
    """Of water | or milk."""
    plants: Annotated[list[str], Field(min_length=1)] = Field(default_factory=lambda: ["reed"])
    """What grows in it."""
    nothing: bool = False


class Zoo(Model):
    seed: Seed
    """Seed of all."""
    bowl: Bowl
    """Where it swims."""
    tub: Bowl
    """Where it
    sleeps."""
    spare: Bowl | None = None
    pets: dict[Name, Annotated[Cat | Fish, Field(discriminator="kind")]] = Field(default_factory=dict)
    """Who lives there."""
    shy: dict[str, Probability] = Field(default_factory=dict)
    """How often each hides."""


def test_a_page_of_other_settings():
    head = "| key | type | default | meaning |\n| --- | --- | --- | --- |\n"
    assert page(Zoo).endswith(
        f"""
{head}| `seed` | whole number at least 0 and below 2^63 | must be given | Seed of all. |
| `bowl` | [keys of `bowl`](#bowl-tub-and-spare) | must be given | Where it swims. |
| `tub` | [keys of `tub`](#bowl-tub-and-spare) | must be given | Where it sleeps. |
| `spare` | [keys of `spare`](#bowl-tub-and-spare) or null | `null` | What a fish is in. |
| `pets` | names, each with [keys of `pets`](#pets) | `{{}}` | Who lives there. |
| `shy` | names, each with number from 0 to 1 | `{{}}` | How often each hides. |

## `bowl`, `tub` and `spare`

What a fish is in.

{head}| `litres` | number above 0 | must be given | Of water \\| or milk. |
| `plants` | list of at least 1: text | `[reed]` | What grows in it. |
| `nothing` | true or false | `false` |  |

## `pets`

One entry for each name: `pets.NAME`. Its `kind` says which other keys it has.

### `kind: cat`

One that purrs.

{head}| `lives` | whole number from 1 to 9 | `9` | How often it may fall. |
| `box` | the keys below | see its keys | What it sleeps in. |
| `box.lined` | true or false | `true` | Whether it is soft. |

### `kind: carp` or `koi`

No other key.
"""
    )


def test_the_page_is_what_the_command_writes(tmp_path, monkeypatch, capsys):
    assert (ROOT / "docs/settings.md").read_text() == page(), "`vlm-itl settings --write` makes it anew"
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)
    main(["--write"])
    assert capsys.readouterr().out == "wrote docs/settings.md\n"
    assert (tmp_path / "docs/settings.md").read_text() == page()
    main([])
    assert capsys.readouterr().out == page()


def test_away_from_the_top_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"^error: docs: no such folder \(run this from the repository's top folder\)$"):
        main(["--write"])
    assert not list(tmp_path.iterdir())


def test_every_key_has_a_meaning():
    assert [f"{table.places[0]}.{row.key}" for table in tables() for row in table.rows if not row.meaning] == []


def keys(content: dict[str, Any], known: set[str], prefix: str = "") -> Iterator[str]:
    """Dotted keys; what stands under a key that holds no known one is a value."""
    for name, value in content.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict) and any(key.startswith(f"{prefix}{name}.") for key in known):
            yield from keys(value, known, f"{prefix}{name}.")


@pytest.mark.parametrize("name", ["params.yaml", *(f"presets/{path.name}" for path in sorted((ROOT / "presets").glob("*.yaml")))])
def test_every_key_of_the_shipped_files_is_on_the_page(name):
    found = {place: {row.key for row in table.rows} for table in tables() for place in table.places}
    content = read_yaml(ROOT / name)
    assert set(content) <= found[""]
    for section in ("autolabels", "judges"):
        for entry in content[section].values():
            known = found[f"{section}.{entry['kind']}"]
            assert set(keys(entry, known)) - {"kind"} <= known
    for section in ("runs", "verifiers", "calibrations"):
        for entry in content[section].values():
            assert set(keys(entry, found[section])) <= found[section]
    for section in sorted(set(content) & set(found) - {"autolabels", "judges", "runs", "verifiers", "calibrations"}):
        assert set(keys(content[section], found[section])) <= found[section]
