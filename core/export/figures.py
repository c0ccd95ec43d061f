"""The charts of a run as picture files (PNG, SVG, PDF) and as data: what the chart menus and the figure exporters call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from core.analysis import series
from core.analysis.speed_quality import Point, points
from core.errors import Refusal
from core.export import drawing
from core.export.ab_test_chart import Rounds, draw_rounds
from core.export.chart_style import ChartFrame
from core.export.files import names, write_table, write_whole
from core.export.latency import draw_latency
from core.export.speed_quality import draw_speed_quality, point_table
from core.messages.reason import Reason
from core.plain_text import visible
from core.records.run import Run

_DRAW: Mapping[str, Callable[[Run, str], ChartFrame]] = {
    "latency": draw_latency,
    "memory": drawing.draw_memory,
    "heat": drawing.draw_heat,
    "stages": drawing.draw_stages,
    "machine": drawing.draw_machine,
}
CHARTS = tuple(_DRAW)
SPEED_QUALITY = "speed-quality"
"""The one chart of many runs: written beside those of each run where there are at least two to draw."""

LEAST_POINTS = 2
FORMATS = ("png", "svg", "pdf")

# No dates: the same run gives the same file (but for random ids in SVG).
_METADATA: Mapping[str, dict[str, Any]] = {
    "png": {"Software": "Tickscope"},
    "svg": {"Creator": "Tickscope", "Date": None},
    "pdf": {"Creator": "Tickscope", "CreationDate": None},
}


def check() -> Reason | None:
    """Why no picture can be made here, or None."""
    return None if find_spec("matplotlib") else Reason("export.needs-matplotlib")


def figure(name: str, run: Run, theme: str = "light") -> Any:
    """The matplotlib ``Figure`` of chart ``name`` (one of ``CHARTS``) in a theme ("light", "dark"). Any thread may call it."""
    if name == SPEED_QUALITY:
        return draw_speed_quality(points([run]), theme).figure
    if name not in _DRAW:
        raise ValueError(Reason("export.no-chart", name=name, known=tuple(CHARTS)))
    return _DRAW[name](run, theme).figure


def write_figure(name: str, run: Run, path: Path, theme: str = "light") -> None:
    """Save chart ``name`` in the format of ``path``'s suffix (.png, .svg, .pdf); ``Refusal`` if that cannot be."""
    _save(lambda: figure(name, run, theme), path)


def write_speed_quality(drawn: Sequence[Point], path: Path, theme: str = "light") -> None:
    """Save the chart of many runs in the format of ``path``'s suffix; errors as ``write_figure``."""
    _save(lambda: draw_speed_quality(drawn, theme).figure, path)


def write_rounds(shown: Rounds, run: Run, path: Path, theme: str = "light") -> None:
    """Save an A/B test round by round, in the format of ``path``'s suffix; errors as ``write_figure``. ``run``: any side."""
    _save(lambda: draw_rounds(shown, run, theme).figure, path)


def _save(draw: Callable[[], Any], path: Path) -> None:
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise Refusal(Reason("export.no-picture-format", name=path.name))
    reason = check()
    if reason:
        raise Refusal(Reason("export.cannot-be-drawn", name=path.name, why=reason))
    drawn = draw()
    _take_literally(drawn)
    # In memory: where a write fails, matplotlib's PDF closes a file that it has not begun, and raises AttributeError for it.
    content = BytesIO()
    drawn.savefig(content, format=kind, facecolor=drawn.get_facecolor(), metadata=_METADATA[kind])
    write_whole(content.getvalue(), path)


def _take_literally(drawn: Any) -> None:
    """A dollar in a name is a dollar: matplotlib would set what stands between two of them as a formula, or fail to."""
    from matplotlib.text import Text

    for text in drawn.findobj(Text):
        text.set_parse_math(False)
        text.set_text(visible(text.get_text(), lines=True))


def write_chart_csv(name: str, run: Run, path: Path) -> None:
    """Save what chart ``name`` shows as a CSV table."""
    write_table(chart_table(name, run), path)


def chart_table(name: str, run: Run) -> Mapping[str, Sequence[Any]]:
    """What chart ``name`` shows, as columns. The machine's tracks have their own times, so they come one after another."""
    if name == SPEED_QUALITY:
        return point_table(points([run]))
    if name not in _DRAW:
        raise ValueError(Reason("export.no-chart", name=name, known=tuple(CHARTS)))
    if name == "machine":
        rows = [
            (time, track.title, value, track.unit)
            for track in series.machine(run)
            for time, value in zip(track.time_s.tolist(), track.value.tolist(), strict=True)
        ]
        return {head: [row[i] for row in rows] for i, head in enumerate(("time_s", "track", "value", "unit"))}
    table: Mapping[str, Sequence[Any]] = getattr(series, name)(run).table()
    return table


def write_all(runs: Sequence[Run], path: Path, kind: str, theme: str = "light") -> list[Path]:
    """Save every chart of every run in format ``kind``; see ``Exporter.write`` for ``path``."""
    files = names(path, f".{kind}", CHARTS, runs)
    for (index, name), file in files.items():
        write_figure(name, runs[index], file, theme)
    written = list(files.values())
    drawn = points(runs)
    if sum(one.cost is not None for one in drawn) >= LEAST_POINTS:
        (file,) = names(path, f".{kind}", (SPEED_QUALITY,), runs[:1]).values()
        write_speed_quality(drawn, file, theme)
        written.append(file)
    return written
