"""The page of all settings, `docs/settings.md`, made from the types in `vlm_itl.settings` and the docstrings of their fields."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from vlm_itl.core.errors import UserError
from vlm_itl.core.fields import NAME, Model
from vlm_itl.core.files import write_text
from vlm_itl.core.redact import say
from vlm_itl.settings import Settings

PAGE = Path("docs/settings.md")
KEYS = "the keys below"
NAMES = f"^{NAME}$"  # the pattern of `fields.Name`
HEAD = """# Settings

Every key of `params.yaml`, section by section. `vlm-itl settings --write` makes this page from the types and docstrings in
`src/vlm_itl/settings`, so change those, not this page.

A default holds where the file leaves a key out. DVC has to find the keys that its stages watch in the file, defaults too; `make repro`
says which are missing. An unknown key is an error. The dots in a key are levels of the file: `coco2017.retries` under `data` is
`data: {coco2017: {retries: 5}}`.
"""

Schema = dict[str, Any]  # JSON schema is a tree of these


@dataclass(frozen=True)
class Row:
    """A line of a table; `key` is dotted and without its section, and `meaning` is empty where nobody has written one."""

    key: str
    type: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Table:
    """`places` are the dotted ones of its keys, such as `judges.human` for the judges of that kind; "" for the file's own keys."""

    places: list[str]
    heading: str
    text: str
    rows: list[Row]


class _Schema(GenerateJsonSchema):
    """JSON schema in which a default that a function makes stands like any other."""

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        factory = None if schema.get("default_factory_takes_data") else schema.get("default_factory")
        return factory() if factory else super().get_default_value(schema)  # type: ignore[call-arg]


def tables(settings: type[Model] = Settings) -> list[Table]:
    """The tables of a settings class: the file's own keys, then a section after the other; sections of one type share theirs."""
    schema = settings.model_json_schema(schema_generator=_Schema)
    defs: Schema = schema.get("$defs", {})
    sections: dict[str, list[str]] = {}  # by the type: names
    for name, node in schema["properties"].items():
        if _models(node, defs) or _entry(node):
            sections.setdefault(repr(_entry(node) or _models(node, defs)), []).append(name)
    links = {name: _link(name, names) for names in sections.values() for name in names}
    own = list(_rows(schema, defs, deep=False))
    found = [Table([""], "", "", [replace(row, type=row.type.replace(KEYS, links[row.key])) if row.key in links else row for row in own])]
    for names in sections.values():
        node = schema["properties"][names[0]]
        heading = _heading(names)
        entry = _entry(node)
        if entry is None:
            found += [Table(names, heading, _text(model), list(_rows(model, defs))) for model in _models(node, defs)]
            continue
        models, kind = _models(entry, defs), entry.get("discriminator", {}).get("propertyName")
        line = f"One entry for each name: `{names[0]}.NAME`."
        if kind is None:
            found += [Table(names, heading, f"{line} {_text(model)}".strip(), list(_rows(model, defs))) for model in models]
            continue
        found.append(Table(names, heading, f"{line} Its `{kind}` says which other keys it has.", []))
        for model in models:
            of = model["properties"][kind]
            values = [of["const"]] if "const" in of else of["enum"]
            rows = [row for row in _rows(model, defs) if row.key != kind]
            heading = f"### `{kind}: {values[0]}`" + "".join(f" or `{value}`" for value in values[1:])
            text = _text(model) if rows else f"{_text(model)} No other key.".strip()
            found.append(Table([f"{name}.{value}" for name in names for value in values], heading, text, rows))
    return found


def _heading(names: list[str]) -> str:
    *most, last = [f"`{name}`" for name in names]
    return f"## {', '.join(most)} and {last}" if most else f"## {last}"


def _link(name: str, names: list[str]) -> str:
    """A link to the section, which is known by what GitHub makes of its heading."""
    return f"[keys of `{name}`](#{re.sub('[^a-z0-9_ -]', '', _heading(names).removeprefix('## ').lower()).replace(' ', '-')})"


def page(settings: type[Model] = Settings) -> str:
    """The whole page, as Markdown."""
    first, *others = tables(settings)
    parts = [HEAD, _lines(first.rows)]
    for table in others:
        parts += [table.heading + "\n", *([table.text + "\n"] if table.text else []), *([_lines(table.rows)] if table.rows else [])]
    return "\n".join(parts)


def _lines(rows: list[Row]) -> str:
    cells = [(f"`{row.key}`", row.type, row.default, row.meaning) for row in rows]
    body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in cells]
    return "\n".join(["| key | type | default | meaning |", "| --- | --- | --- | --- |", *body]) + "\n"


def _rows(model: Schema, defs: Schema, prefix: str = "", deep: bool = True) -> Iterator[Row]:
    """The keys of a model, those of the models within it after the key that holds them."""
    for name, node in model["properties"].items():
        inner, key = _models(node, defs), f"{prefix}{name}"
        if name in model.get("required", []):
            default = "must be given"
        elif inner and node["default"] is not None:
            default = "see its keys"
        else:
            default = f"`{_yaml(node['default'])}`"
        meaning = node.get("description") or " ".join(_text(one) for one in inner)
        yield Row(key, _words(node, defs), default, " ".join(meaning.split()))
        for one in inner if deep else []:
            yield from _rows(one, defs, f"{key}.")


def _parts(node: Schema) -> list[Schema]:
    return node.get("anyOf") or node.get("oneOf") or [node]


def _models(node: Schema, defs: Schema) -> list[Schema]:
    """The models that may stand there."""
    named = [defs[part["$ref"].rpartition("/")[2]] for part in _parts(node) if "$ref" in part]
    return [one for one in named if "properties" in one]


def _entry(node: Schema) -> Schema | None:
    """What stands under each name, where the node is a mapping from names to models."""
    entry = next(iter(node.get("patternProperties", {}).values()), None)
    return entry if entry and any("$ref" in part for part in _parts(entry)) else None


def _text(model: Schema) -> str:
    return " ".join(model.get("description", "").split())


def _words(node: Schema, defs: Schema) -> str:
    """The type of a node in plain words."""
    if len(parts := _parts(node)) > 1:
        words = dict.fromkeys(_words(part, defs) for part in parts)
        return " or ".join(words)
    if _models(node, defs):
        return KEYS
    if "$ref" in node:
        return _words(defs[node["$ref"].rpartition("/")[2]], defs)
    if "const" in node or "enum" in node:
        *most, last = [f"`{value}`" for value in node.get("enum", [node.get("const")])]
        return f"{', '.join(most)} or {last}" if most else last
    kind = node.get("type")
    if kind == "array":
        least, most_items = node.get("minItems"), node.get("maxItems")
        number = f" of {least} to {most_items}" if least and most_items else f" of at least {least}" if least else ""
        return f"list{number}: {_words(node['items'], defs)}"
    if kind == "object":
        values = _entry(node) or node.get("additionalProperties") or next(iter(node.get("patternProperties", {}).values()), {})
        return f"names, each with {_words(values, defs)}" if isinstance(values, dict) and values else "names, each with any value"
    if kind == "string":
        return "name" if node.get("pattern") == NAMES else "text, not empty" if node.get("minLength") else "text"
    if kind in ("integer", "number"):
        return ("whole number" if kind == "integer" else "number") + _bounds(node)
    return {"boolean": "true or false", "null": "null"}.get(str(kind), "any value")


def _bounds(node: Schema) -> str:
    least, above, most, below = (node.get(name) for name in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"))
    if least is not None and most is not None:
        return f" from {_number(least)} to {_number(most)}"
    low = f"at least {_number(least)}" if least is not None else f"above {_number(above)}" if above is not None else ""
    high = f"at most {_number(most)}" if most is not None else f"below {_number(below)}" if below is not None else ""
    return f" {low} and {high}" if low and high else f" {low}{high}" if low or high else ""


def _number(value: float) -> str:
    power = int(value).bit_length() - 1
    return f"2^{power}" if value >= 2**16 and value == 2**power else f"{value:,g}" if abs(value) < 1000 else f"{int(value):,}"


def _yaml(value: Any) -> str:
    """A default as it would stand in the file."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(part)}" for key, part in value.items()) + "}"
    return '""' if value == "" else str(value)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="vlm-itl settings", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE} instead of printing it")
    if not parser.parse_args(argv).write:
        for line in page().splitlines():
            say(line)
        return
    try:
        if not PAGE.parent.is_dir():
            raise UserError(f"{PAGE.parent}: no such folder (run this from the repository's top folder)")
        write_text(PAGE, page())
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
    say(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
