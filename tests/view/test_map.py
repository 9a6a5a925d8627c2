"""The map of a memory: where its entries lie, what is drawn and counted, and which are nearest to the place that was pressed."""

import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from lived import Page, lived
from test_server import SAYS, client

from agentevolve.memory import HashEmbedder, open_memory
from agentevolve.records import Entry
from agentevolve.run.folder import VIEW, Run
from agentevolve.view import maps, scatter, templates
from agentevolve.view.index import ReadIndex
from agentevolve.view.memories import Memories

PNG, SVG = b"\x89PNG\r\n\x1a\n", b"<?xml"
ALL = scatter.Window()
WORDS = ("lamp", "door", "red", "blue", "kitchen", "key", "bread", "river")


class Wide(HashEmbedder):
    """Hashed words again, of another size."""

    dim = 32
    name = identity = "wide"


def a_run(place: Path) -> Path:
    run = Run(place, quiet=True)
    run.once("a run", lambda: "and nothing else")
    run.close()
    return place


def remembering(place: Path, count: int, embedder=None, kind: str = "insight", index: bool = True) -> Path:
    """A run whose memory has so many entries, of different keys and in two kinds of words."""
    a_run(place)
    with open_memory(place / "memory", embedder=embedder or HashEmbedder()) as memory:
        memory.add([entry(number, kind) for number in range(count)])
        if index and count:
            memory.recall("lamp", env="e", k=1, kind=kind)
        memory.note({f"{kind}-{number}": 0.5 - number for number in range(min(count, 2))}, 2)
    return place


def entry(number: int, kind: str) -> Entry:
    words = " ".join(WORDS[(number * step) % len(WORDS)] for step in (1, 3, 5))
    return Entry(id=f"{kind}-{number}", kind=kind, key=f"{words} {number}", text=f"says {number}", env="e", round=1 + number % 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = lived(tmp_path_factory.mktemp("runs") / "mine", SAYS)
    with open_memory(place / "memory", embedder=HashEmbedder()) as memory:
        memory.search("lamp", 1)  # embeds the keys of all shelves
    return place


@pytest.fixture(scope="module")
def asked(run):
    return client(run.parent)


def test_the_page_its_twin_and_its_picture(asked):
    page, told = asked.get("/runs/mine/map"), asked.get("/runs/mine/map.json").json()
    assert page.status_code == 200 and Page(page.text).wrong == []
    assert told["said"] == "4 entries on the map." and (told["count"], told["form"], told["near"]) == (4, "svg", [])
    assert [(one["kind"], one["count"]) for one in told["table"]] == [("demo", 3), ("insight", 1)]
    assert 'type="image" src="/runs/mine/map.svg?' in page.text and 'aria-current="page">Memory' in page.text
    assert 0 < sum(told["shares"]) <= 1.0001
    picture = asked.get("/runs/mine/map.svg")
    assert picture.headers["content-type"] == "image/svg+xml" and picture.content.startswith(SVG)
    assert picture.content == asked.get("/runs/mine/map.svg").content and b"<script" not in picture.content
    assert asked.get("/runs/mine/map.png").content.startswith(PNG)
    assert 'href="/runs/mine/map?kind=demo"' in asked.get("/runs/mine/memory?kind=demo&near=lamp").text


@pytest.mark.parametrize("colour", ["kind", "credit", "round"])
def test_it_is_coloured_by(asked, colour):
    assert asked.get(f"/runs/mine/map.svg?colour={colour}").content.startswith(SVG)
    assert f'value="{colour}" selected' in asked.get(f"/runs/mine/map?colour={colour}").text


@pytest.mark.parametrize("query", ["colour=mood", "x=-1&y=2", "x=1.5", "kind=demo&round=x", "x=99999999999"])
def test_what_cannot_be_asked_is_one_line(asked, query):
    for page in ("map", "map.json", "map.svg", "map.png"):
        answer = asked.get(f"/runs/mine/{page}?{query}")
        assert answer.status_code == 404 and "Traceback" not in answer.text


def test_the_filters_are_those_of_the_list_and_move_nothing(asked):
    for query in ("kind=demo", "round=1", "state=retired", "text=lamp", "kind=insight&env=e", "seed=0"):
        listed, told = (asked.get(f"/runs/mine/{page}.json?{query}").json() for page in ("memory", "map"))
        assert (told["count"], told["facets"]) == (listed["count"], listed["facets"])
    assert asked.get("/runs/mine/map.json?kind=insight").json()["shares"] == asked.get("/runs/mine/map.json").json()["shares"]
    assert "1 entry of the kind insight on the map." in asked.get("/runs/mine/map?kind=insight").text


def places(place: Path, window: scatter.Window = ALL) -> dict[str, tuple[float, float]]:
    """Where each entry is in the picture of the window, in pixels."""
    index = ReadIndex(place)
    index.update()
    held = Memories(index)
    held.update()
    made = maps.charts(held, maps.stamps(held))
    found = maps.shown(held, made.all, maps.Placed())
    ids = {row["n"]: row["id"] for row in index.ask("SELECT n, id FROM entries")}
    spots = scatter.pixels(found.spots, found.chart.ends, window)
    index.close()
    return {ids[n]: tuple(spot) for n, spot in zip(found.n.tolist(), spots.tolist(), strict=True)}


def test_a_click_leads_to_the_nearest_entries(tmp_path):
    place = remembering(tmp_path / "r", 60)
    asked, where = client(place), places(place)
    assert len(where) == 60
    for id in ("insight-0", "insight-17", "insight-59"):
        x, y = (round(part) for part in where[id])
        near = asked.get(f"/runs/r/map.json?x={x}&y={y}").json()["near"]
        away = [np.hypot(where[one["id"]][0] - x, where[one["id"]][1] - y) for one in near]
        assert away == sorted(away) and away[0] <= 1 and len(near) == maps.NEAREST
        assert np.hypot(where[id][0] - x, where[id][1] - y) <= away[-1]
    page = asked.get(f"/runs/r/map?x={x}&y={y}&colour=round&round=3")
    assert "Nearest to the place pressed" in page.text and Page(page.text).wrong == []
    assert f"/runs/r/map.svg?round=3&amp;colour=round&amp;x={x}&amp;y={y}" in page.text
    assert {one["round"] for one in asked.get(f"/runs/r/map.json?x={x}&y={y}&round=3").json()["near"]} == {3}
    assert len(asked.get("/runs/r/map.json?x=0&y=999999").json()["near"]) == maps.NEAREST
    assert asked.get(f"/runs/r/map.svg?x={x}&y={y}").content != asked.get("/runs/r/map.svg").content


def test_the_picture_lies_as_the_style_says():
    style = (templates.STATIC / "style.css").read_text("utf-8")
    [found] = re.findall(
        r"\.map \[type=image\] \{[^}]*width: (\d+)px; height: (\d+)px; max-width: none; padding: 0; border: 0;", style
    )
    assert tuple(map(int, found)) == scatter.SIZE


@pytest.mark.parametrize("count", [0, 1, 2])
def test_of_few_entries(tmp_path, count):
    place = remembering(tmp_path / "r", count)
    asked = client(place)
    told = asked.get("/runs/r/map.json?x=300&y=200").json()
    assert told["count"] == len(told["near"]) == count
    for colour in ("kind", "credit", "round"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert asked.get(f"/runs/r/map.svg?colour={colour}").content.startswith(SVG)
    page = asked.get("/runs/r/map")
    assert page.status_code == 200 and ("There is nothing to draw." in page.text) == (count == 0)


def test_a_run_without_a_memory(tmp_path):
    asked = client(a_run(tmp_path / "r"))
    assert asked.get("/runs/r/map.json").json()["said"] == "0 entries on the map."
    assert asked.get("/runs/r/map.png").content.startswith(PNG)


def test_what_is_not_embedded_yet_is_counted_beside_it(tmp_path):
    place = remembering(tmp_path / "r", 3, index=False)
    asked = client(place)
    assert asked.get("/runs/r/map.json").json()["said"] == "0 entries on the map; not on it: 3 not embedded."
    with open_memory(place / "memory", embedder=HashEmbedder()) as memory:
        memory.recall("lamp", env="e", k=1, kind="insight")
    assert asked.get("/runs/r/map.json").json()["said"] == "3 entries on the map."


def test_vectors_that_the_key_has_not_signed_have_no_place(tmp_path):
    place = remembering(tmp_path / "r", 3)
    [file] = (place / "memory" / "chroma").glob("*.vectors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert client(place).get("/runs/r/map.json").json()["said"] == "2 entries on the map; not on it: 1 not embedded."


def test_entries_of_several_embedding_sizes(tmp_path):
    place = tmp_path / "r"
    for seed, (count, embedder) in enumerate([(5, HashEmbedder()), (3, Wide()), (4, HashEmbedder())]):
        remembering(place / f"seed-{seed}", count, embedder)
    asked = client(place)
    told = asked.get("/runs/r/map.json?x=1&y=1").json()
    assert told["said"] == "9 entries on the map at 4 places; not on it: 3 embedded by another model." and told["apart"] == 3
    assert {one["seed"] for one in told["near"]} == {0, 2}
    only = asked.get("/runs/r/map.json?seed=1&x=1&y=1").json()
    assert (only["said"], len(only["near"])) == ("3 entries of seed 1 on the map.", 3)
    assert asked.get("/runs/r/map.svg?seed=1").content.startswith(SVG)


def test_nothing_is_written(run, tmp_path):
    place = shutil.copytree(run, tmp_path / "mine")
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    asked = client(place)
    with open_memory(place / "memory", embedder=HashEmbedder()):  # and nobody is waited for
        for page in ("map", "map.json", "map.svg", "map.png?colour=round", "map?x=1&y=2"):
            assert asked.get(f"/runs/mine/{page}").status_code == 200
    after = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    kept = {path: said for path, said in after.items() if not path.name.startswith(VIEW) and path.name != "lock"}
    assert kept == {path: said for path, said in before.items() if not path.name.startswith(VIEW) and path.name != "lock"}


def test_of_many_the_cells_are_drawn(monkeypatch, tmp_path):
    place = remembering(tmp_path / "r", 40)
    monkeypatch.setattr(scatter, "MOST", 10)
    monkeypatch.setattr(maps, "DRAWN", 10)
    asked = client(place)
    assert asked.get("/runs/r/map.json").json()["form"] == "png" and "/runs/r/map.png?" in asked.get("/runs/r/map").text
    pictures = [asked.get(f"/runs/r/map.png?colour={colour}").content for colour in ("kind", "credit", "round")]
    assert all(one.startswith(PNG) for one in pictures) and len(set(pictures)) == 3


def test_the_directions_are_those_of_the_singular_values():
    random = np.random.default_rng(0)
    for shape in ((50, 8), (5, 8), (200, 3), (3, 1)):
        vectors = random.normal(size=shape).astype(np.float32)
        spots, shares = maps.flat(vectors)
        exact = np.linalg.svd(vectors - vectors.mean(0), compute_uv=False)
        wanted = [*(exact**2 / (exact**2).sum()), 0.0][:2]
        assert np.allclose(shares, wanted, atol=1e-5) and spots.shape == (shape[0], 2)
    spots, shares = maps.flat(np.ones((4, 3), np.float32))
    assert not spots.any() and shares == (0.0, 0.0)


def test_a_part_is_looked_at_alone(tmp_path):
    place = remembering(tmp_path / "r", 60)
    asked, where = client(place), places(place)
    whole = asked.get("/runs/r/map.json").json()
    assert list(whole["ways"]) == ["closer"]
    for id in ("insight-0", "insight-17", "insight-59"):
        (x, y), query = (round(part) for part in where[id]), ""
        for zoom in (2, 4, 8, 256):
            query = asked.get(f"/runs/r/map.json?{query}&x={x}&y={y}").json()["ways"]["closer"]
            query = re.sub("zoom=[0-9]+", f"zoom={zoom}", query)
            told = asked.get(f"/runs/r/map.json?{query}").json()
            assert told["asked"]["zoom"] == zoom and "of 60 entries in this part of the map" in told["said"]
            assert told["count"] == sum(one["count"] for one in told["table"]) >= 1
            window = scatter.Window(*(told["asked"][name] for name in scatter.Window._fields))
            x, y = (round(part) for part in places(place, window)[id])
            near = asked.get(f"/runs/r/map.json?{query}&x={x}&y={y}").json()["near"]
            assert id in {one["id"] for one in near} or len(near) == maps.NEAREST
            page = asked.get(f"/runs/r/map?{query}")
            assert page.status_code == 200 and Page(page.text).wrong == [] and f"1/{zoom} of each side" in page.text
            assert asked.get(f"/runs/r/map.svg?{query}").content.startswith(SVG)
    assert asked.get(f"/runs/r/map.svg?{query}").content != asked.get("/runs/r/map.svg").content


def test_the_windows_of_a_map_cover_it(tmp_path):
    place = remembering(tmp_path / "r", 60)
    asked, seen, ahead = client(place), {}, ["zoom=4&across=0&up=0"]
    while ahead:
        told = asked.get(f"/runs/r/map.json?{ahead.pop()}").json()
        at = told["asked"]["across"], told["asked"]["up"]
        if at not in seen:
            seen[at] = told["count"]
            ahead += [told["ways"][way] for way in ("right", "up") if way in told["ways"]]
    assert len(seen) == 49 and max(seen) == (8750, 8750)  # half a window a step, to the other edge
    corners = [asked.get(f"/runs/r/map.json?zoom=2&across={x}&up={y}").json()["count"] for x in (0, 10_000) for y in (0, 10_000)]
    assert sum(corners) >= 60 and sum(seen.values()) >= 60
    assert 'data-key="0" href="/runs/r/map?"' in asked.get("/runs/r/map?zoom=2").text
    back = asked.get("/runs/r/map.json?zoom=4&across=2000&up=7000").json()["ways"]
    assert asked.get(f"/runs/r/map.json?{back['whole']}").json()["count"] == 60 and "zoom=2" in back["further"]
    assert "closer" not in asked.get(f"/runs/r/map.json?zoom={maps.CLOSEST}").json()["ways"]
    assert asked.get("/runs/r/map?zoom=3").status_code == 404 and asked.get("/runs/r/map.png?zoom=0").status_code == 404


def test_a_press_looks_closer_where_that_is_asked_for(tmp_path):
    place = remembering(tmp_path / "r", 60)
    asked = client(place)
    answer = asked.get("/runs/r/map?press=closer&colour=round&kind=insight&x=30&y=490")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/runs/r/map?kind=insight&colour=round&zoom=2&across=2500&up=2500&press=closer"
    page = asked.get(answer.headers["location"]).text
    assert 'value="closer" checked' in page and 'name="zoom" value="2"' in page
    again = asked.get(answer.headers["location"] + "&x=560&y=12").headers["location"]
    assert again == "/runs/r/map?kind=insight&colour=round&zoom=4&press=closer"  # its upper right corner is the middle of the map
    last = asked.get(f"/runs/r/map?zoom={maps.CLOSEST}&press=closer&x=300&y=200")
    assert last.status_code == 200  # it does not go closer: it lists


def test_closer_of_many_it_is_finer(monkeypatch, tmp_path):
    place = remembering(tmp_path / "r", 200)
    asked = client(place)
    monkeypatch.setattr(scatter, "MOST", 150)
    monkeypatch.setattr(maps, "DRAWN", 150)
    assert asked.get("/runs/r/map.json").json()["form"] == "png"
    told = asked.get("/runs/r/map.json?zoom=2&across=0&up=0").json()
    assert 0 < told["count"] < 150 and told["form"] == "svg"  # so few are dots again
    ends = np.array([[0.0, 0.0], [1.0, 1.0]])
    spots = np.array([[0.096, 0.1], [0.102, 0.1]])
    for zoom, cells in ((1, 1), (16, 2)):
        window = scatter.Window(zoom, 1_000, 1_000).within()
        dots = scatter.Dots(spots, ends, window, np.zeros(2), (0.0, 0.0), "kind", ("a",))
        assert int((scatter._cells(dots, None) > 0).sum()) == cells


def test_the_places_are_kept_in_the_index(tmp_path):
    place = remembering(tmp_path / "r", 30)
    shares = client(place).get("/runs/r/map.json").json()["shares"]
    index = ReadIndex(place)
    with index.writing():
        index.write("UPDATE charts SET first = ?", [(0.125,)])
    index.close()
    assert client(place).get("/runs/r/map.json").json()["shares"] == [0.125, shares[1]]
    with open_memory(place / "memory", embedder=HashEmbedder()) as memory:
        memory.retire("insight-1", 5, "old")
    assert client(place).get("/runs/r/map.json").json()["shares"] == shares
