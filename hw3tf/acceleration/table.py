"""Tables of plain text."""

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]]) -> str:
    """`rows`, of which the first is the head, in columns as wide as they need."""
    *widths, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = []
    for *cells, last in rows:
        padded = (cell.ljust(w) for cell, w in zip(cells, widths, strict=True))
        lines.append("  ".join([*padded, last]))
    return "\n".join(lines)
