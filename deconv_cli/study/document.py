"""A small document that is written as Markdown and as a single HTML file."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #111; }
table { border-collapse: collapse; font-size: 0.85rem; display: block; overflow-x: auto; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid #ccc; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #666; } th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; } figure { margin: 1.5rem 0; } figcaption { color: #444; font-size: 0.9rem; }
code { background: #f2f2f2; padding: 0 0.2rem; }
"""


@dataclass(frozen=True)
class Heading:
    """A heading of the given level."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Text, in which ``**...**`` is bold and back-ticks are code."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Grid:
    """A table."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A PNG, by name of its file and content."""

    name: str
    png: bytes = field(repr=False)
    caption: str


Block = Heading | Paragraph | Items | Grid | Picture


def to_markdown(blocks: Sequence[Block]) -> str:
    """Write Markdown; pictures are links to files beside it."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def to_html(blocks: Sequence[Block], title: str) -> str:
    """Write one HTML file that needs nothing beside it."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n<body>\n{body}\n</body>\n'
        "</html>\n"
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Paragraph(text):
            return text
        case Items(texts):
            return "\n".join(f"* {text}" for text in texts)
        case Grid(headings, rows):
            rule = ["---", *["---:"] * (len(headings) - 1)]
            return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows))
        case Picture(name, _, caption):
            return f"![{caption}]({name})\n\n{caption}"


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{_inline(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{_inline(text)}</p>"
        case Items(texts):
            return "<ul>" + "".join(f"<li>{_inline(text)}</li>" for text in texts) + "</ul>"
        case Grid(headings, rows):
            head = "".join(f"<th>{_inline(cell)}</th>" for cell in headings)
            body = "".join("<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>" for row in rows)
            return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        case Picture(_, png, caption):
            data = base64.b64encode(png).decode()
            text = _inline(caption)
            alternative = html.escape(caption, quote=True)
            return (
                f'<figure><img alt="{alternative}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption>'
                "</figure>"
            )


def _inline(text: str) -> str:
    escaped = html.escape(text, quote=False)
    escaped = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escaped)
    return re.sub(r"`(.+?)`", r"<code>\1</code>", escaped)
