"""The picture of a map: a dot an entry, or, of many, how many lie in each cell; in pixels that can be told back into places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from agentevolve.evaluate.picture import COLOURS, FAINT, INK, MARKS, rendered, style
from agentevolve.evaluate.table import plain

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

SIZE = (720, 520)  # pixels as a page shows it, whatever the picture itself has
LEFT, TOP, RIGHT, BOTTOM = 30, 12, 560, 490  # of the axes in it
INCH, DPI = 96, 192  # pixels of a page; of a PNG, for fine screens
MOST = 20_000  # dots: of more the cells are drawn
CELLS = (106, 95)  # of five pixels
FORMED = 3_000  # dots up to which an SVG has each of them as a form of its own


class Dots(NamedTuple):
    """What is drawn: where, of all that has a place where, what the colour says of each, and the kinds' names."""

    spots: NDArray[np.float64]  # (n, 2)
    all: NDArray[np.float64]  # (m, 2): the limits hold these
    said: NDArray[Any]  # (n,)
    colour: str
    kinds: tuple[str, ...]


def pixels(spots: NDArray[np.float64], all: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where in the picture the spots are, in a page's pixels from its upper left corner."""
    import numpy as np

    low, high = _limits(all)
    share = (spots - low) / (high - low)
    return np.stack([LEFT + share[:, 0] * (RIGHT - LEFT), BOTTOM - share[:, 1] * (BOTTOM - TOP)], 1)


def _limits(all: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lower and the upper end of both axes, with room around what there is."""
    import numpy as np

    if not len(all):
        return np.full(2, -1.0), np.full(2, 1.0)
    low, high = all.min(0), all.max(0)
    wide = high - low
    room = np.where(wide > 1e-6, 0.05 * wide, 1.0)  # what does not differ lies in the middle
    return low - room, high + room


def drawn(dots: Dots, shares: tuple[float, float], pressed: tuple[int, int] | None, form: str) -> bytes:
    """The picture in that form, "svg" or "png", with a ring where it was `pressed`; `shares` of the variance go to the axes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(style()):  # type: ignore[arg-type]  # its stubs want literal keys
        figure = Figure(figsize=(SIZE[0] / INCH, SIZE[1] / INCH), dpi=DPI)
        FigureCanvasAgg(figure)
        axes = figure.add_axes(_box(LEFT, TOP, RIGHT, BOTTOM))
        _frame(axes, dots, shares)
        if len(dots.spots):
            _kinds(axes, dots) if dots.colour == "kind" else _values(figure, axes, dots)
        if pressed:
            ring: dict[str, Any] = {"marker": "o", "ms": 14, "mfc": "none", "mec": INK, "mew": 1.2, "clip_on": False}
            axes.plot(*_share(pressed), transform=axes.transAxes, **ring)
        return rendered(figure, form)


def _box(left: int, top: int, right: int, bottom: int) -> tuple[float, float, float, float]:
    """A box in a page's pixels as matplotlib wants it: left, bottom, width and height as shares."""
    wide, high = SIZE
    return left / wide, 1 - bottom / high, (right - left) / wide, (bottom - top) / high


def _share(pressed: tuple[int, int]) -> tuple[list[float], list[float]]:
    """Where of the axes that is, as shares; what is outside the picture is at its edge."""
    x, y = min(pressed[0], SIZE[0]), min(pressed[1], SIZE[1])
    return [(x - LEFT) / (RIGHT - LEFT)], [(BOTTOM - y) / (BOTTOM - TOP)]


def _frame(axes: Axes, dots: Dots, shares: tuple[float, float]) -> None:
    (left, low), (right, high) = (one.tolist() for one in _limits(dots.all))
    axes.set(xlim=(left, right), ylim=(low, high), xticks=[], yticks=[])
    axes.set_xlabel(f"first direction: {shares[0]:.0%} of how they differ")
    axes.set_ylabel(f"second direction: {shares[1]:.0%} of how they differ")
    if not len(dots.spots):
        axes.text(0.5, 0.5, "nothing to draw", transform=axes.transAxes, ha="center", color=FAINT)


def _kinds(axes: Axes, dots: Dots) -> None:
    """A colour and a mark for each kind; of cells, that of the kind that most of what is in them has."""
    from matplotlib.lines import Line2D

    many, handles = len(dots.spots) > MOST, []
    for place, kind in enumerate(dots.kinds):
        colour, mark = COLOURS[place % len(COLOURS)], "s" if many else MARKS[place % len(MARKS)]
        if not many:
            _scatter(axes, dots.spots[dots.said == place], len(dots.spots), c=colour, marker=mark)
        handles.append(Line2D([], [], ls="", ms=5, label=plain(kind), color=colour, marker=mark))
    if many:
        _kinds_by_cell(axes, dots)
    axes.legend(handles=handles, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0), handlelength=1.0)


def _kinds_by_cell(axes: Axes, dots: Dots) -> None:
    import numpy as np
    from matplotlib.colors import to_rgb

    counts = np.stack([_cells(dots, dots.said == place) for place in range(len(dots.kinds))])
    colours = np.array([to_rgb(COLOURS[place % len(COLOURS)]) for place in range(len(dots.kinds))])
    _paint(axes, colours[counts.argmax(0)], counts.sum(0))


def _values(figure: Figure, axes: Axes, dots: Dots) -> None:
    """Each dot in the colour of its value; each cell in that of the mean of what is in it."""
    import numpy as np
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import MaxNLocator

    colours, scale = _scale(dots)
    if len(dots.spots) > MOST:
        counts = _cells(dots, None)
        mean = _cells(dots, None, dots.said) / np.maximum(counts, 1)
        _paint(axes, colours(scale(mean))[..., :3], counts)
    else:
        _scatter(axes, dots.spots, len(dots.spots), c=dots.said, cmap=colours, norm=scale)
    beside = figure.add_axes(_box(RIGHT + 20, TOP + 20, RIGHT + 36, 220))
    figure.colorbar(ScalarMappable(scale, colours), cax=beside)
    beside.set_title(dots.colour, loc="left", fontsize=7.5)
    if dots.colour == "round":
        beside.yaxis.set_major_locator(MaxNLocator(integer=True))


def _scale(dots: Dots) -> tuple[Colormap, Normalize]:
    """Rounds from dark to light; credit from red, what does harm, over grey to blue, what helps."""
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    if dots.colour == "round":
        low, high = int(dots.said.min()), int(dots.said.max())
        return matplotlib.colormaps["viridis"], Normalize(low, max(high, low + 1))
    most = float(abs(dots.said).max()) or 1.0
    return LinearSegmentedColormap.from_list("credit", [COLOURS[1], "#b8bfc7", COLOURS[0]]), Normalize(-most, most)


def _scatter(axes: Axes, spots: NDArray[np.float64], of: int, **look: Any) -> None:
    size = 26 if of <= 500 else 12 if of <= 5_000 else 5
    axes.scatter(spots[:, 0], spots[:, 1], s=size, alpha=0.75, linewidths=0, rasterized=of > FORMED, **look)


def _cells(dots: Dots, here: NDArray[np.bool_] | None, weights: NDArray[Any] | None = None) -> NDArray[np.float64]:
    """How many dots, or what of `weights`, there is in each cell: rows from the lower end."""
    import numpy as np

    low, high = _limits(dots.all)
    spots = dots.spots if here is None else dots.spots[here]
    found, _, _ = np.histogram2d(spots[:, 0], spots[:, 1], CELLS, [(low[0], high[0]), (low[1], high[1])], weights=weights)
    return np.asarray(found.T, np.float64)


def _paint(axes: Axes, colours: NDArray[np.float64], counts: NDArray[np.float64]) -> None:
    """The cells in their colours, the fuller the stronger; empty ones are left white."""
    import numpy as np

    strong = np.where(counts > 0, 0.25 + 0.75 * np.log1p(counts) / np.log1p(counts.max()), 0.0)
    image = np.dstack([colours, strong])
    extent = (*axes.get_xlim(), *axes.get_ylim())
    axes.imshow(image, extent=extent, origin="lower", aspect="auto", interpolation="nearest")
