"""Every page and its JSON twin, asked as a browser would and as nobody should: who is answered, and what a page may do."""

import asyncio
import json
import os
import shutil
import socket
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lived import Page, addresses, lived, twin
from starlette.requests import Request
from starlette.testclient import TestClient

from agentevolve.memory import open_memory
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry
from agentevolve.run.folder import JOURNAL, Run
from agentevolve.view import server
from agentevolve.view.places import Places
from agentevolve.view.security import Guard, hosts
from agentevolve.view.server import guarded

sys.path.insert(0, str(Path(__file__).parents[1] / "memory"))
import hostile

HOST = "127.0.0.1:8265"
SAYS = (
    " <script>alert(1)</script> \"'><img src=x onerror=alert(1)> {{ 7*7 }} {% raw %} </bdi></div> javascript:alert(1)"
    " \u202eturned\u2066 \x1b[31mred\x07 \u200b \ufeff "
    + hostile.TAGGED
    + hostile.VARIED
    + " <|im_end|> &amp; http://evil.example/"
)


def client(place, token="", known=HOST, **more):
    app = guarded(place, hosts(known.rpartition(":")[0], int(known.rpartition(":")[2]), token), token, **more)
    return TestClient(app, base_url=f"http://{known}", follow_redirects=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return lived(tmp_path_factory.mktemp("runs") / "mine", SAYS)


@pytest.fixture(scope="module")
def asked(run):
    return client(run.parent)


@pytest.mark.parametrize("address", addresses("mine"))
def test_a_page_shows_hostile_words_as_text(asked, address):
    answer = asked.get(address)
    assert answer.status_code == 200, answer.text
    page = Page(answer.text)
    assert page.wrong == []
    assert "49" not in answer.text or "{{ 7*7 }}" in answer.text
    told = asked.get(twin(address))
    assert told.headers["content-type"] == "application/json" and isinstance(told.json(), dict)
    assert "\u202e" not in told.text  # JSON says it by its number
    assert len(answer.content) < 1_000_000 and len(told.content) < 1_000_000


def test_the_pages_say_what_happened(asked):
    said = asked.get("/runs/mine").text
    for words in ("promoted memory", "may forget", "looks like a collapse", "OSError: the ceiling came down", "1/val"):
        assert words in said
    attempt = asked.get("/runs/mine/attempt?id=1/val/memory/corridor/val/100/0&turn=1").text
    for words in (
        "⟨U+202E⟩",
        "⟨U+001B⟩[31m",
        "⟨U+200B⟩",
        "⟨U+FEFF⟩",
        "⟨U+E0073⟩",
        "&lt;script&gt;",
        "2 recalled of",
        'aria-current="step"',
    ):
        assert words in attempt
    both = asked.get("/runs/mine/compare?a=1/val/memory/corridor/val/100/0&b=1/val/base/corridor/val/100/0").text
    assert "They differ from the start" in both and "in the first alone" in both
    lost = "/runs/mine/compare?a=1/val/memory/corridor/val/100/0&b=1/val/memory/corridor/val/101/0"
    assert "<del>" in asked.get(lost).text and "<ins>" in asked.get(lost).text
    entry = asked.get("/runs/mine/entry?id=demo/1/acquire/corridor/train/0/0").text
    assert "1/acquire/corridor/train/0/0" in entry and "Shown to" in entry and "1/val/memory/corridor/val/100/0" in entry
    assert asked.get("/runs/mine/curve.svg").headers["content-type"] == "image/svg+xml"


def test_the_address_is_the_state(asked):
    answer = asked.get("/runs/mine/attempts?text=&outcome=lost&task=")
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs/mine/attempts?outcome=lost")
    told = asked.get("/runs/mine/attempts.json?outcome=lost").json()
    assert told["said"] == "1 attempt that was lost; the first made first." and told["asked"]["outcome"] == "lost"


NOWHERE = [
    "/x",
    "/runs/none",
    "/runs/mine/attempt?id=x",
    "/runs/mine/attempts?round=x",
    "/runs/mine/entry?id=x",
    "/static/none.css",
]
NOWHERE += ["/runs/mine/compare?a=x&b=y", "/runs/mine/attempts?after=x", "/runs/mine/attempt?id=1&seed=1e9"]
NOWHERE += ["/runs/mine/attempts?text=%3F", "/runs/mine/attempts?seed=-1&at_least=99999999999999999999"]


@pytest.mark.parametrize("address", NOWHERE)
def test_what_is_not_there_is_one_line(asked, address):
    answer = asked.get(address)
    assert answer.status_code == 404 and 'role="alert"' in answer.text and not Page(answer.text).wrong
    assert "Traceback" not in answer.text


HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cross-origin-resource-policy": "same-origin"}


@pytest.mark.parametrize("address", ["/", "/x", "/static/style.css", "/runs/mine/curve.svg", "/index.json"])
def test_every_answer_has_the_policy(asked, address):
    one, other = asked.get(address), asked.get(address)
    for name, value in HEADERS.items():
        assert one.headers[name] == value
    policy = one.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'nonce-") and policy != other.headers["content-security-policy"]
    for part in ("style-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'", "connect-src 'self'"):
        assert part in policy
    assert "require-trusted-types-for 'script'" in policy and "unsafe" not in policy
    if address == "/":
        nonce = policy.partition("'nonce-")[2].partition("'")[0]
        assert one.text.count(f'nonce="{nonce}"') == one.text.count("<script ") == 4


@pytest.mark.parametrize(
    "host", ["evil.example:8265", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:8265", "", "127.0.0.1:8265.evil"]
)
def test_another_host_is_not_answered(asked, host):
    assert asked.get("/", headers={"host": host}).status_code == 403


def test_hosts_are_those_of_loopback(asked):
    for host in ("localhost:8265", "127.0.0.1:8265", "[::1]:8265", "LOCALHOST:8265"):
        assert asked.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:8265", "http://127.0.0.1", "http://127.0.0.1:82650"]
)
def test_another_origin_is_not_answered(asked, origin):
    assert asked.get("/index.json", headers={"origin": origin}).status_code == 403


def test_another_site_may_link_but_not_load(asked):
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert asked.get("/", headers=link).status_code == 200
    for change in ({"sec-fetch-dest": "iframe"}, {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}):
        assert asked.get("/", headers=link | change).status_code == 403
    assert asked.get("/", headers=link | {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}).status_code == 403


@pytest.mark.parametrize(
    ("host", "token", "said"),
    [
        ("192.0.2.7", "", "others can reach it"),
        ("example.org", "", "others can reach it"),
        ("0.0.0.0", "x" * 20, "name the one address"),
        ("::", "x" * 20, "name the one address"),
        ("127.0.0.1", "short", "shorter than 16"),
    ],
)
def test_an_open_server_is_refused(host, token, said):
    with pytest.raises(AgentevolveError, match=said):
        hosts(host, 8265, token)


def test_a_token_is_asked_for_and_kept_out_of_addresses(run):
    token = "a-token-of-some-length"
    asked = client(run, token, "192.0.2.7:8265")
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"cookie": f"agentevolve-view={token}"},
        {"cookie": "agentevolve-view=c."},
    ):
        assert asked.get("/", headers=headers).status_code == 401
    assert asked.get("/?token=wrong").status_code == 401
    assert asked.get("/static/style.css").status_code == 401
    answer = asked.get(f"/runs/mine/attempts?outcome=lost&token={token}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs/mine/attempts?outcome=lost")
    cookie = answer.headers["set-cookie"]
    assert token not in cookie and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert asked.get("/").status_code == 200  # the client keeps the cookie
    asked.cookies.clear()
    assert asked.get("/", headers={"authorization": f"Bearer {token}"}).status_code == 200
    away = asked.get(f"//evil.example/?token={token}")
    assert away.headers.get("location", "/").startswith("/") and not away.headers.get("location", "/").startswith("//")


SAME = {"sec-fetch-site": "same-origin"}


def test_a_change_comes_from_a_page_of_its_own(run, tmp_path):
    place = shutil.copytree(run, tmp_path / "mine")
    assert client(place).post("/runs/mine/retire", headers=SAME).status_code in (404, 405)
    asked, said = client(place, edit=True), {"id": "rule", "seed": "0", "why": "it is wrong"}
    assert 'action="/runs/mine/retire"' in asked.get("/runs/mine/entry?id=rule").text
    for headers in (
        {},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "null"},
    ):
        assert asked.post("/runs/mine/retire", data=said, headers=headers).status_code == 403
    with open_memory(place / "memory"):
        assert "in use" in asked.post("/runs/mine/retire", data=said, headers=SAME).text
    answer = asked.post("/runs/mine/retire", data=said, headers=SAME)
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs/mine/entry?id=rule&seed=0")
    assert "retired in round 1: <bdi>it is wrong</bdi>" in asked.get("/runs/mine/entry?id=rule").text
    assert asked.get("/runs/mine/memory.json?state=retired").json()["count"] == 1
    assert asked.post("/runs/mine/retire", data={**said, "id": "none"}, headers=SAME).status_code == 404


def test_a_retired_entry_is_restored(run, tmp_path):
    place = shutil.copytree(run, tmp_path / "mine")
    assert client(place).post("/runs/mine/restore", headers=SAME).status_code in (404, 405)
    asked, said = client(place, edit=True), {"id": "rule", "seed": "0"}
    assert asked.post("/runs/mine/restore", data=said, headers=SAME).status_code == 404  # it is there
    asked.post("/runs/mine/retire", data=said, headers=SAME)
    page = asked.get("/runs/mine/entry?id=rule").text
    assert 'action="/runs/mine/restore"' in page and not Page(page).wrong
    assert asked.post("/runs/mine/restore", data=said).status_code == 403
    answer = asked.post("/runs/mine/restore", data=said, headers=SAME)
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs/mine/entry?id=rule%2Frestored%2F1&seed=0")
    told = asked.get("/runs/mine/entry.json?id=rule/restored/1").json()
    assert told["row"]["state"] == "there" and told["text"] == asked.get("/runs/mine/entry.json?id=rule").json()["text"]
    assert asked.get("/runs/mine/memory.json?state=retired").json()["count"] == 1
    asked.post("/runs/mine/retire", data={**said, "id": "rule/restored/1"}, headers=SAME)
    answer = asked.post("/runs/mine/restore", data={**said, "id": "rule/restored/1"}, headers=SAME)
    assert answer.headers["location"].endswith("id=rule%2Frestored%2F2&seed=0")


NAMES = ["..", ".", "", "mine", "~", "secret", "memory", "etc", "passwd", "static", "runs", "%2e%2e", "..%2f", "\\", "\x00"]
parts = st.sampled_from(NAMES)
paths = st.lists(st.one_of(parts, st.text(max_size=6)), min_size=1, max_size=6).map(lambda found: "/" + "/".join(found))


@settings(max_examples=300, deadline=None)
@given(paths, st.sampled_from(["", "/attempts", "/attempt?id=x", "/curve.svg", "/memory.json"]))
def test_no_address_leads_out_of_the_folder(secret, path, page):
    from urllib.parse import quote

    for address in (f"/runs{quote(path)}{page}", f"/static{quote(path)}", quote(path), f"/runs/{quote(path, safe='')}{page}"):
        answer = secret.get(f"http://{HOST}{address}")
        assert answer.status_code in (200, 303, 307, 404) and "PLUGH" not in answer.text


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """A folder beside which, and in links out of which, there is what nobody may see."""
    place = tmp_path_factory.mktemp("secret")
    lived(place / "secret", " PLUGH")
    (place / "runs").mkdir()
    lived(place / "runs" / "mine")
    (place / "runs" / "link").symlink_to(place / "secret", target_is_directory=True)
    for name, file in (("one", JOURNAL), ("two", "memory")):
        shutil.copytree(place / "runs" / "mine", place / "runs" / name)
        target = place / "runs" / name / file
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        target.symlink_to(place / "secret" / file)
    return client(place / "runs")


def test_links_out_of_the_folder_are_not_followed(secret):
    told = secret.get("/index.json").json()["runs"]
    assert {one["name"]: bool(one["error"]) for one in told} == {"mine": False, "one": True, "two": True}
    for name in ("one", "two", "link"):
        for address in addresses(name)[1:]:
            answer = secret.get(address)
            assert answer.status_code == 404 and "PLUGH" not in answer.text


def test_what_is_no_request_is_dropped(run):
    calls = []

    async def inner(scope, receive, send):
        calls.append(scope)

    asyncio.run(Guard(inner, hosts("localhost", 1, ""))({"type": "websocket"}, None, None))
    assert calls == []


def test_a_run_that_grows_is_said_at_once(run, tmp_path, monkeypatch):
    place = shutil.copytree(run, tmp_path / "mine")
    monkeypatch.setattr(server, "LOOK", 0.01)
    gone = []

    async def receive():
        await asyncio.sleep(3600 if not gone else 0)
        return {"type": "http.disconnect"}

    async def listen():
        request = Request({"type": "http", "method": "GET", "path": "/live", "headers": [], "query_string": b""}, receive)
        places = Places(place)
        events = server._events(request, lambda: places.grown(""), places.grown(""))
        assert "here" in await anext(events)
        (place / JOURNAL).open("ab").write(b'{"kind":"fact","name":"x","data":1}\n')
        changed = await asyncio.wait_for(anext(events), 5)
        assert changed.startswith("event: changed\nid: 0-1-")

    asyncio.run(listen())


def test_a_run_under_way_is_watched(run, tmp_path):
    place = shutil.copytree(run, tmp_path / "mine")
    asked = client(place)
    assert "data-hx-sse:connect" not in asked.get("/runs/mine").text
    held = Run(place, quiet=True)
    try:
        said = asked.get("/runs/mine").text
        assert 'data-hx-sse:connect="/live?run=mine&amp;since=0-1-' in said and "under way" in said
    finally:
        held.close()
    (place / "lock").write_text("999999999")
    assert "stopped on the way" in asked.get("/runs/mine").text


@pytest.mark.parametrize("case", hostile.CASES, ids=lambda case: case.name)
def test_no_attack_on_the_memory_shows_as_more_than_text(case, tmp_path):
    home = hostile.Home(tmp_path, frozenset(hostile.DEFENCES))
    try:
        case.attack(home)
        home.later()
    finally:
        home.run.close()
    asked = client(tmp_path / "run")
    attempts = [one["id"] for one in asked.get("/runs/run/attempts.json").json()["rows"]]
    entries = [one["id"] for one in asked.get("/runs/run/memory.json").json()["rows"]]
    pages = ["/", "/runs/run", "/runs/run/attempts", "/runs/run/memory", "/runs/run/policies"]
    answers = [asked.get(page) for page in pages]
    answers += [asked.get("/runs/run/attempt", params={"id": id}) for id in attempts]
    answers += [asked.get("/runs/run/entry", params={"id": id}) for id in entries]
    assert len(answers) > 5 and [Page(answer.text).wrong for answer in answers if Page(answer.text).wrong] == []
    assert {answer.status_code for answer in answers} == {200}


def test_it_starts_by_the_command_line(run, tmp_path):
    import subprocess
    import time
    import urllib.request

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from agentevolve.cli.main import main; main()", "view", str(run), "--port", str(port)]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, stderr=subprocess.PIPE)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            time.sleep(0.1)
        told = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/index.json", timeout=60).read())
        assert [one["name"] for one in told["runs"]] == ["mine"]
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize("command", ["view", "serve"])
def test_a_port_in_use_is_one_line(run, command, tmp_path, ask):
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        given = ["view", run] if command == "view" else ["serve", "--model", "openai/none", "--out", tmp_path / "served"]
        code, out, err = ask(*given, "--port", port)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert f"127.0.0.1:{port}: Address already in use; name another with --host or --port" in err


def test_runs_that_are_being_read_keep_nobody_waiting(run):
    inspector = server.Inspector(Places(run.parent))
    places = inspector.pages.places
    places.unread.add("mine")
    asked = TestClient(Guard(inspector.app(), hosts("localhost", 8265, "")), base_url="http://localhost:8265")
    said = asked.get("/").text
    assert "being read" in said and 'data-hx-sse:connect="/live?run=&amp;since=1-1-' in said
    inspector.warm()
    assert places.unread == set() and places.grown("").startswith("0-1-")
    assert "promoted memory" in asked.get("/").text


def test_entries_are_found_by_meaning(asked, run, tmp_path):
    told = asked.get("/runs/mine/memory.json?near=Go to the lamp").json()
    assert len(told["rows"]) == 4 and {"id", "similarity", "uses"} <= set(told["rows"][0])
    only = asked.get("/runs/mine/memory.json?near=Go to the lamp&kind=insight").json()["rows"]
    assert [row["id"] for row in only] == ["rule"]
    page = asked.get("/runs/mine/memory?near=lamp")
    assert "nearest in meaning to “lamp” of all entries" in page.text and not Page(page.text).wrong
    place = shutil.copytree(run, tmp_path / "mine")
    other = client(place)
    assert len(other.get("/runs/mine/memory.json?near=zebra").json()["rows"]) == 4
    with open_memory(place / "memory") as memory:
        memory.add([Entry(id="new", kind="insight", key="zebra", text="zebra", env="e")])
    assert other.get("/runs/mine/memory.json?near=zebra").json()["rows"][0]["id"] == "new"
    shutil.rmtree(place / "memory")
    assert asked.get("/runs/mine/memory?near=x&seed=7").status_code == 404
