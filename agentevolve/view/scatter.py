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
WHOLE = 10_000  # parts of a side of the whole map, in which the middle of a window is told
WHERE = (RIGHT + 20, 430, RIGHT + 102, BOTTOM)  # of the small frame that says which part of the whole is shown


class Window(NamedTuple):
    """The part of a map that is shown: a `zoom`-th of each side, around a middle in WHOLE parts from the left and from below."""

    zoom: int = 1
    across: int = WHOLE // 2
    up: int = WHOLE // 2

    def within(self) -> Window:
        """The same, moved to where all of it lies on the map."""
        half = WHOLE // (2 * self.zoom)
        return Window(self.zoom, *(min(max(half, one), WHOLE - half) for one in (self.across, self.up)))

    def at(self, x: int, y: int) -> Window:
        """The window of that size around a place of the picture, in its pixels, maybe not all within the map."""
        right, up = (x - LEFT) / (RIGHT - LEFT), (BOTTOM - y) / (BOTTOM - TOP)
        shares = [min(max(one, 0.0), 1.0) - 0.5 for one in (right, up)]
        across, up = (one + round(WHOLE * share / self.zoom) for one, share in zip(self[1:], shares, strict=True))
        return Window(self.zoom, across, up)


class Dots(NamedTuple):
    """What is drawn: where, of all that has a place where, which part of it; what the colour says; the kinds' names."""

    spots: NDArray[np.float64]  # (n, 2)
    ends: NDArray[np.float64]  # (2, 2): the lower and the upper ends of the whole map
    window: Window
    said: NDArray[Any]  # (n,)
    reach: tuple[float, float]  # of what the colour says, of all that is asked for
    colour: str
    kinds: tuple[str, ...]


def inside(spots: NDArray[np.float64], ends: NDArray[np.float64], window: Window) -> NDArray[np.bool_]:
    """Which of the spots are in the window."""
    low, high = limits(ends, window)
    right_of, left_of = spots >= low, spots <= high
    return right_of[:, 0] & right_of[:, 1] & left_of[:, 0] & left_of[:, 1]


def pixels(spots: NDArray[np.float64], ends: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
    """Where in the picture of the window the spots are, in a page's pixels from its upper left corner."""
    import numpy as np

    low, high = limits(ends, window)
    share = (spots - low) / (high - low)
    return np.stack([LEFT + share[:, 0] * (RIGHT - LEFT), BOTTOM - share[:, 1] * (BOTTOM - TOP)], 1)


def ends(spots: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lower and the upper ends of a map on which all of these lie, with room around them, shape (2, 2)."""
    import numpy as np

    if not len(spots):
        return np.array([[-1.0, -1.0], [1.0, 1.0]])
    low, high = (np.array([end(spots[:, 0]), end(spots[:, 1])]) for end in (np.min, np.max))
    room = np.where(high - low > 1e-6, 0.05 * (high - low), 1.0)  # what does not differ lies in the middle
    return np.stack([low - room, high + room])


def limits(ends: NDArray[np.float64], window: Window) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lower and the upper end of both axes of the window."""
    import numpy as np

    low, high = ends
    middle = low + (high - low) * np.array(window[1:]) / WHOLE
    half = (high - low) / (2 * window.zoom)
    return middle - half, middle + half


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
        if dots.window.zoom > 1:
            _say_where(figure, dots.window)
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
    (left, low), (right, high) = (one.tolist() for one in limits(dots.ends, dots.window))
    axes.set(xlim=(left, right), ylim=(low, high), xticks=[], yticks=[])
    axes.set_xlabel(f"first direction: {shares[0]:.0%} of how they differ")
    axes.set_ylabel(f"second direction: {shares[1]:.0%} of how they differ")
    if not len(dots.spots):
        axes.text(0.5, 0.5, "nothing to draw", transform=axes.transAxes, ha="center", color=FAINT)


def _say_where(figure: Figure, window: Window) -> None:
    """The whole as a small frame, with the window in it; a window that would be a speck is drawn larger."""
    from matplotlib.patches import Rectangle

    axes = figure.add_axes(_box(*WHERE))
    axes.set(xlim=(0, WHOLE), ylim=(0, WHOLE), xticks=[], yticks=[], facecolor="none")
    axes.set_title(f"shown: 1/{window.zoom} of each side", loc="left", fontsize=7.5)
    axes.spines[:].set_visible(True)
    wide = max(WHOLE / window.zoom, WHOLE / 20)
    axes.add_patch(Rectangle((window.across - wide / 2, window.up - wide / 2), wide, wide, facecolor=COLOURS[0], edgecolor=INK))


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

    colours, scale = _scale(dots.colour, *dots.reach)
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


def _scale(colour: str, low: float, high: float) -> tuple[Colormap, Normalize]:
    """Rounds from dark to light; credit from red, what does harm, over grey to blue, what helps."""
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    if colour == "round":
        return matplotlib.colormaps["viridis"], Normalize(low, max(high, low + 1))
    most = max(-low, high) or 1.0
    return LinearSegmentedColormap.from_list("credit", [COLOURS[1], "#b8bfc7", COLOURS[0]]), Normalize(-most, most)


def _scatter(axes: Axes, spots: NDArray[np.float64], of: int, **look: Any) -> None:
    size = 26 if of <= 500 else 12 if of <= 5_000 else 5
    axes.scatter(spots[:, 0], spots[:, 1], s=size, alpha=0.75, linewidths=0, rasterized=of > FORMED, **look)


def _cells(dots: Dots, here: NDArray[np.bool_] | None, weights: NDArray[Any] | None = None) -> NDArray[np.float64]:
    """How many dots, or what of `weights`, there is in each cell: rows from the lower end."""
    import numpy as np

    low, high = limits(dots.ends, dots.window)
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
