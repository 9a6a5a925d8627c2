"""The inspector in a real browser: every page, by keyboard, live, in light and dark, wide and narrow, with no policy violated.

Skipped where there is no Chromium (Debian's `chromium`; AGENTEVOLVE_CHROMIUM names another).
"""

import contextlib
import os
import shutil
import socket
import threading
import time

import pytest
import test_comparisons
import uvicorn
from lived import addresses, lived
from worlds import make_tasks

from agentevolve.act.rollout import rollout
from agentevolve.memory import HashEmbedder, open_memory
from agentevolve.memory.move import take_in
from agentevolve.policy import Policy
from agentevolve.run.folder import Run
from agentevolve.view import file
from agentevolve.view.security import hosts
from agentevolve.view.server import guarded

CHROMIUM = os.environ.get("AGENTEVOLVE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
SAYS = " <script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> \u202e\x1b[31m"
MORE = [
    "/comparisons/compared",
    "/runs/mine/map?zoom=4&across=2000&colour=credit",
    "/runs/alone/memory",
    "/runs/alone/map?x=1&y=1",
]
MORE += ["/runs/alone/entry?id=rule"]
HERE = ("http://127.0.0.1", "data:", "file:")
comparison = test_comparisons.comparison  # the fixture


@pytest.fixture(scope="module")
def place(tmp_path_factory, comparison):
    """A run, beside it a comparison and a memory without a run."""
    made = lived(tmp_path_factory.mktemp("runs") / "mine", SAYS)
    shutil.copytree(comparison[0], made.parent / "compared")
    with open_memory(made.parent / "alone", embedder=HashEmbedder()) as memory:
        take_in(memory, made / "memory")
        memory.search("lamp", 1)  # embeds what is drawn on the map
        memory.annotate("rule", f"mine{SAYS}")
        memory.quarantine("rule", 1, f"wrong{SAYS}")
    return made


@contextlib.contextmanager
def served(folder):
    """The address of a server of the folder."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        app = guarded(folder, hosts("127.0.0.1", port, ""), edit=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([door],))
        thread.start()
        while not server.started:
            time.sleep(0.05)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def site(place):
    with served(place.parent) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


@pytest.fixture
def page(browser):
    """A page that must not complain: what its console says as an error, and what leaves this machine, is kept in `wrong`."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    made = context.new_page()
    made.wrong = []
    made.on("console", lambda said: made.wrong.append(said.text) if said.type in ("error", "warning") else None)
    made.on("pageerror", lambda error: made.wrong.append(str(error)))
    made.on("request", lambda asked: made.wrong.append(asked.url) if not asked.url.startswith(HERE) else None)
    yield made
    context.close()
    assert made.wrong == []


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_page_fits_and_can_be_read(site, page, width, colours):
    from axe_playwright_python.sync_playwright import Axe

    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=colours)
    axe = Axe()
    for address in (*addresses("mine"), *MORE):
        page.goto(site + address)
        assert "owned" not in page.title()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
        found = axe.run(page).response["violations"]
        serious = [(one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in ("serious", "critical")]
        assert serious == [], address


def test_a_press_on_the_map_lists_what_is_nearest(site, page):
    page.set_viewport_size({"width": 400, "height": 900})  # narrower than the picture, which is scrolled and not made smaller
    page.goto(f"{site}/runs/mine/memory?kind=demo")
    page.get_by_role("link", name="map", exact=True).click()
    page.locator(".map [type=image]").click(position={"x": 100, "y": 200})
    page.wait_for_url("**/map?kind=demo&colour=kind&press=list&x=100&y=200")
    assert page.locator("h2#near").count() == 1
    page.locator("a.row").first.click()
    page.wait_for_url("**/entry?id=demo**")


def test_an_attempt_is_replayed_by_keyboard_alone(site, page):
    page.goto(f"{site}/runs/mine/attempts?arm=val/memory")
    for _ in range(2):
        page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.wait_for_url("**/attempt?**")
    for turn in (1, 2):
        page.keyboard.press("j")
        page.wait_for_url(f"**turn={turn}#turn-{turn}")
        assert page.locator("article.current h2").inner_text().startswith(f"Turn {turn}")
    page.keyboard.press("k")
    page.wait_for_url("**turn=1#turn-1")
    first = page.url
    page.keyboard.press("[")
    page.wait_for_url("**/attempt?id=1%2Fval%2Fbase**")
    page.keyboard.press("]")
    page.wait_for_url("**/attempt?id=1%2Fval%2Fmemory**")
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    page.locator("#keys").wait_for(state="hidden")
    page.keyboard.press("u")
    page.wait_for_url("**/attempts?**")
    page.keyboard.press("u")
    page.wait_for_url(f"{site}/runs/mine")
    page.keyboard.press("u")
    page.wait_for_url(f"{site}/")
    page.goto(first)  # a deep link
    assert page.locator("article.current h2").inner_text().startswith("Turn 1")


def test_a_list_is_filtered(site, page):
    page.goto(f"{site}/runs/mine/attempts")
    page.keyboard.press("/")
    page.keyboard.type("lamp")
    page.keyboard.press("Enter")
    page.wait_for_url("**/attempts?text=lamp&sort=first")
    page.get_by_label("filter by").get_by_role("link", name="val", exact=True).click()
    page.wait_for_url("**split=val**")
    assert page.get_by_role("status").inner_text() == "6 attempts of the val split with the words “lamp”; the first made first."


def test_the_map_is_looked_at_closely_by_keys_and_by_pointer(site, page):
    page.goto(f"{site}/runs/alone/map")
    page.keyboard.press("+")
    page.wait_for_url("**/map?zoom=2")
    page.keyboard.press("H")
    page.wait_for_url("**/map?zoom=2&across=2500")
    page.keyboard.press("K")
    page.wait_for_url("**/map?zoom=2&across=2500&up=7500")
    assert page.locator(".map [type=image]").evaluate("image => image.src.endsWith('zoom=2&across=2500&up=7500')")
    page.keyboard.press("0")
    page.wait_for_url("**/map?")
    page.get_by_label("looks closer").check()
    page.locator(".map [type=image]").click(position={"x": 100, "y": 400})
    page.wait_for_url("**zoom=2**press=closer")
    page.locator(".map [type=image]").click(position={"x": 300, "y": 300})
    page.wait_for_url("**zoom=4**press=closer")
    page.keyboard.press("-")
    page.wait_for_url("**zoom=2**press=closer")
    context = page.context.browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(f"{site}/runs/alone/map")
    plain.get_by_label("looks closer").check()
    plain.locator(".map [type=image]").click(position={"x": 100, "y": 400})
    plain.wait_for_url("**zoom=2**press=closer")
    plain.get_by_role("link", name="further").click()
    plain.wait_for_url("**/map?press=closer")
    context.close()


def test_a_deep_link_says_the_same_after_a_restart(place, page):
    """Of the comparison, of a part of the map, of an entry."""
    said = []
    for _ in range(2):
        with served(place.parent) as address:
            for link in MORE:
                page.goto(address + link)
                said.append((link, page.locator("main").inner_text()))
    half = len(said) // 2
    assert said[:half] == said[half:] and "Who is better?" in said[0][1]


def test_an_entry_is_put_in_quarantine_and_noted_by_hand(site, page):
    page.goto(f"{site}/runs/alone/entry?id=demo/1/acquire/corridor/train/0/0")
    page.get_by_label("your note").fill("look at\nthis again")
    page.get_by_role("button", name="keep the note").click()
    page.wait_for_url("**&seed=0")
    assert page.get_by_label("your note").input_value() == "look at\nthis again"
    page.get_by_label("put it in quarantine, because").fill("odd")
    page.get_by_role("button", name="quarantine").click()
    page.get_by_text("in quarantine since round 1: odd").wait_for()
    page.get_by_role("button", name="restore").click()
    page.get_by_role("button", name="quarantine").wait_for()
    page.goto(f"{site}/runs/alone/memory?kind=demo")
    assert page.get_by_text("look at").count() == 1


def test_an_entry_is_retired_by_hand(site, page):
    page.goto(f"{site}/runs/mine/entry?id=rule")
    page.get_by_label("retire it, because").fill("it is wrong")
    page.get_by_role("button", name="retire").click()
    page.get_by_text("retired in round 1: it is wrong").wait_for()


def test_a_run_under_way_is_updated_without_a_reload(site, page, place):
    run = Run(place, quiet=True)
    try:
        page.goto(f"{site}/runs/mine")
        page.evaluate("document.body.dataset.kept = 'yes'")
        page.get_by_role("cell", name="11", exact=True).wait_for()
        rollout(Policy(model="oracle"), make_tasks(2), run, phase="2/acquire")
        page.get_by_role("cell", name="13", exact=True).wait_for(timeout=20_000)
        rollout(Policy(model="oracle"), make_tasks(1), run, phase="3/acquire")
        page.get_by_role("cell", name="14", exact=True).wait_for(timeout=20_000)
        assert page.evaluate("document.body.dataset.kept") == "yes"
    finally:
        run.close()


def test_the_one_file_opens_from_disk(page, place, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(file.html(place), "utf-8")
    page.context.set_offline(True)
    page.goto(path.as_uri())
    assert page.locator("figure img").evaluate("image => image.naturalWidth") > 0
    page.locator("details.body summary").first.click()
    assert page.get_by_text("turn 1 of").first.is_visible() and "owned" not in page.title()


def test_a_comparison_in_one_file_opens_from_disk(page, place, tmp_path):
    path = tmp_path / "compared.html"
    path.write_text(file.html(place.parent / "compared"), "utf-8")
    page.context.set_offline(True)
    page.goto(path.as_uri())
    assert page.locator("figure img").evaluate("image => image.naturalWidth") > 0
    assert page.get_by_text("What cannot be concluded").is_visible() and "owned" not in page.title()
