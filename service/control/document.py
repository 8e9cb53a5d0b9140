"""A short document as values, and as Markdown or as one HTML file without scripts. Pure; HTML escapes every text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Points:
    """A list, one thought each."""

    points: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing as inline SVG, made by `plots`; Markdown shows what `caption` says of it."""

    svg: str
    caption: str


Block = Text | Points | Table | Figure


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Document:
    title: str
    lead: str
    sections: Sequence[Section]


_STYLE = """
:root { color-scheme: light dark; --line: #8886; --one: #2563eb; --two: #d97706; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: .75rem 0; display: block; overflow-x: auto; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td { font-variant-numeric: tabular-nums; max-width: 36rem; overflow-wrap: anywhere; }
figure { margin: 1rem 0; } figcaption { font-size: .85rem; opacity: .8; } svg { max-width: 100%; height: auto; }
svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
svg .axis { stroke: currentColor; stroke-opacity: .5; fill: none; }
svg .one { stroke: var(--one); fill: none; } svg .two { stroke: var(--two); fill: none; }
svg .dot.one { fill: var(--one); } svg .dot.two { fill: var(--two); } svg .guide { stroke: var(--line); }
"""


def to_html(document: Document) -> str:
    """One self-contained file: no script, nothing loaded from elsewhere."""
    body = [f"<h1>{escape(document.title)}</h1>", f"<p>{escape(document.lead)}</p>"]
    for section in document.sections:
        body.append(f"<section><h2>{escape(section.title)}</h2>")
        body += [_html(block) for block in section.blocks]
        body.append("</section>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(document.title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def to_markdown(document: Document) -> str:
    """GitHub's Markdown."""
    parts = [f"# {_inline(document.title)}", _inline(document.lead)]
    for section in document.sections:
        parts.append(f"## {_inline(section.title)}")
        parts += [_markdown(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _html(block: Block) -> str:
    match block:
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Points(points):
            return "<ul>" + "".join(f"<li>{escape(point)}</li>" for point in points) + "</ul>"
        case Table(columns, rows):
            head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
            lines = ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
            return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
        case Figure(svg, caption):
            return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _markdown(block: Block) -> str:
    match block:
        case Text(text):
            return _inline(text)
        case Points(points):
            return "\n".join(f"- {_inline(point)}" for point in points)
        case Table(columns, rows):
            lines = [columns, ["---"] * len(columns), *rows]
            return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)
        case Figure(_, caption):
            return f"*{_inline(caption)}*"


_MARKS = re.compile(r"([\\`*_\[\]<>#|])")


def _inline(text: str) -> str:
    """Text as it is: one line, and no mark of it means anything."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def _cell(text: str) -> str:
    return text if text == "---" else _inline(text)
