"""Plots as SVG, legible on light and dark pages: text stays text, colors follow the page."""

import math
import xml.sax.saxutils

STYLE = """<style>
  text { font: 12px system-ui, sans-serif; fill: #24292f; }
  .title { font-weight: 600; font-size: 13px; }
  .quiet { fill: #57606a; }
  .grid { stroke: #d0d7de; stroke-width: 1; }
  .ours { fill: #0969da; stroke: #0969da; }
  .others { fill: #8c959f; stroke: #8c959f; }
  .bound { stroke: #cf222e; stroke-dasharray: 5 4; fill: none; }
  .line { fill: none; stroke-width: 2; }
  .bar { stroke: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .quiet { fill: #9198a1; } .grid { stroke: #3d444d; }
    .ours { fill: #4493f8; stroke: #4493f8; } .others { fill: #7d8590; stroke: #7d8590; }
    .bound { stroke: #f85149; }
  }
</style>"""


def svg(width, height, parts):
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', STYLE, *parts, "</svg>"]) + "\n"


def text(x, y, words, kind="", anchor="start"):
    escaped = xml.sax.saxutils.escape(words)
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escaped}</text>'


def line(x1, y1, x2, y2, kind):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def bars(title, values):
    """Draws horizontal bars on a logarithmic scale: [(name, value, whether it is ours)]."""
    left, right, top, each = 330, 60, 40, 22
    width, height = 780, top + each * len(values) + 10
    least = 10 ** math.floor(math.log10(min(value for _, value, _ in values)))
    most = max(value for _, value, _ in values)
    reach = lambda value: (width - left - right) * math.log(value / least) / math.log(most / least)
    parts = [text(10, 20, title, "title")]
    for number, (name, value, ours) in enumerate(values):
        y = top + each * number
        kind = "ours" if ours else "others"
        parts += [
            text(left - 8, y + 13, name, anchor="end"),
            f'<rect x="{left}" y="{y + 2}" width="{reach(value):.1f}" height="{each - 6}" class="bar {kind}"/>',
            text(left + reach(value) + 6, y + 13, f"{value:,.0f}", "quiet"),
        ]
    return svg(width, height, parts)


def along(title, axis, points, bound=None, bound_words=""):
    """Draws a line over a logarithmic axis, [(number, ratio)], with an upper bound."""
    left, right, top, bottom, width, height = 50, 30, 44, 46, 480, 260
    most = max([1.5, *(ratio * 1.1 for _, ratio in points), *([bound * 1.1] if bound else [])])
    first, last = math.log10(points[0][0]), math.log10(points[-1][0])
    across = lambda value: left + (width - left - right) * (math.log10(value) - first) / max(last - first, 0.1)
    up = lambda ratio: height - bottom - (height - bottom - top) * ratio / most
    parts = [text(10, 20, title, "title")]
    step = 0.5 if most < 4 else math.ceil(most / 5)
    for tick in range(int(most / step) + 1):
        y = up(tick * step)
        parts += [line(left, y, width - right, y, "grid"), text(left - 8, y + 4, f"{tick * step:g}", "quiet", "end")]
    if bound:
        parts += [
            line(left, up(bound), width - right, up(bound), "bound"),
            text(width - right, up(bound) - 6, bound_words, "quiet", "end"),
        ]
    path = " ".join(f"{across(value):.1f},{up(ratio):.1f}" for value, ratio in points)
    parts.append(f'<polyline points="{path}" class="line ours" style="fill:none"/>')
    for value, ratio in points:
        parts += [
            f'<circle cx="{across(value):.1f}" cy="{up(ratio):.1f}" r="4" class="ours"/>',
            text(across(value), up(ratio) + 20, f"{ratio:.2f}", anchor="middle"),
            text(across(value), height - bottom + 18, f"{value:,}", "quiet", "middle"),
        ]
    parts.append(text((left + width - right) / 2, height - 8, axis, "quiet", "middle"))
    return svg(width, height, parts)
