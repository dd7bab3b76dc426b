"""Draws the packages and who imports whom from the code: ``python -m docs.packages``."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
DRAWING = Path(__file__).parent / "images" / "packages.svg"
# From the top of the drawing, which may import all below it, to the bottom.
ROWS = [
    ["cli"],
    ["studies"],
    ["inspection", "sweep"],
    ["job"],
    ["micro", "report"],
    ["tfmot", "gate"],
    ["training"],
    ["pruning"],
    ["pruner"],
    ["folding", "budget"],
    ["criteria", "prune_result"],
    ["calibration", "adaptation"],
    ["shards", "layer_choice"],
    ["options", "data", "reconstruction"],
    ["outputs", "tflite", "loading"],
    ["graph", "result_figure", "workers"],
    ["core", "output_folder", "results"],
    ["sample_files"],
    ["utils"],
    ["errors"],
]
WIDTH, HEIGHT, ROW = 130, 24, 46
# Modules of the engine, the others are packages.
ENGINE = {
    "pruning", "pruner", "folding", "budget", "criteria", "prune_result", "calibration", "shards",
    "adaptation", "layer_choice", "options", "reconstruction", "results", "result_figure", "errors",
}  # fmt: skip


def imports() -> set[tuple[str, str]]:
    """Pairs of a package and one that it imports, at the start of a module or later."""
    pairs = set()
    for path in (ROOT / "tfprune").rglob("*.py"):
        here = path.relative_to(ROOT / "tfprune").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tfprune."):
                there = str(node.module).split(".")[1]
                if "__" not in here and there != here:
                    pairs.add((here, there))
    return pairs


def places() -> dict[str, tuple[int, int]]:
    """The upper left corner of every box."""
    widest = max(len(row) for row in ROWS) * (WIDTH + 60)
    corners = {}
    for line, row in enumerate(ROWS):
        step = widest / len(row)
        for column, name in enumerate(row):
            corners[name] = (round(step * (column + 0.5) - WIDTH / 2), 10 + line * ROW)
    return corners


def drawing() -> str:
    """The picture as SVG text, the same for the same code."""
    corners = places()
    width = max(x for x, _ in corners.values()) + WIDTH + 30
    height = len(ROWS) * ROW + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for here, there in sorted(imports()):
        (x, y), (to_x, to_y) = corners[here], corners[there]
        if there in ("errors", "utils"):
            continue  # All import these.
        parts.append(
            f'<path d="M{x + WIDTH // 2},{y + HEIGHT} C{x + WIDTH // 2},{y + HEIGHT + 20} '
            f'{to_x + WIDTH // 2},{to_y - 20} {to_x + WIDTH // 2},{to_y}" fill="none" '
            'stroke="#99a" stroke-width="0.8"/>'
        )
    for name, (x, y) in corners.items():
        fill = "#ffe9b8" if name in ENGINE else "#dbe7f5"
        parts.append(
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="4" fill="{fill}" '
            'stroke="#667"/>'
        )
        parts.append(f'<text x="{x + WIDTH // 2}" y="{y + 16}" text-anchor="middle">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    DRAWING.write_text(drawing(), encoding="utf-8")
