"""The inspector's server: one address a page, its `.json` twin beside it, pictures, static files and what is new in a run.

The address is all of a page's state: it can be sent, kept and opened again. Pages are made in threads, so that a long read keeps
nobody waiting; nothing is written but the read index, unless the server was asked to `edit`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

from agentevolve.memory import EntryMemory, open_memory
from agentevolve.memory.ledger import NOTE
from agentevolve.protocols import AgentevolveError
from agentevolve.view import attempts, memories, templates
from agentevolve.view.attempts import Asked
from agentevolve.view.maps import Placed
from agentevolve.view.memories import Wanted
from agentevolve.view.pages import Pages, number
from agentevolve.view.places import Places
from agentevolve.view.security import Guard, hosts
from agentevolve.view.soon import NotYet

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

KINDS = {".css": "text/css", ".js": "text/javascript"}
YIELD, STILL, LONGEST = 0.02, 0.5, 5.0  # seconds: reading ahead looks so often, goes on after such a silence, or at last
LOOK = 1.0  # seconds between two looks at whether a run has grown
PATIENCE = 0.1  # seconds that a page waits for what takes long
FORM = 12 * NOTE + 10_000  # bytes of a form: a sign takes up to twelve
GROWN = re.compile(r"\d{1,9}(?:-\d{1,18}){3}")  # how far runs have grown, as `Pages.grown` says it
QUIET = 15.0  # seconds after which a silent stream says that it is still there
LISTS: dict[str, tuple[type[Asked] | type[Wanted], Mapping[str, str]]] = {
    "attempts": (Asked, attempts.SORTED),
    "memory": (Wanted, memories.SORTED),
    "map": (Placed, {}),
}
PAGES = ("attempts", "attempt", "compare", "memory", "map", "entry", "policies")

Change = Callable[[EntryMemory, int, str, Mapping[str, str]], str]


class Inspector:
    """The pages of a folder over HTTP; `edit` lets entries be retired, quarantined, restored and annotated.

    `patience` is how many seconds a page waits for what takes long (`Pages`).
    """

    def __init__(self, places: Places, *, edit: bool = False, patience: float | None = None) -> None:
        self.pages, self.edit = Pages(places, patience), edit
        self._lock, self._answering, self._answered = threading.Lock(), 0, time.monotonic()

    def app(self) -> Starlette:
        """The application, without its guard."""
        from starlette.applications import Starlette
        from starlette.routing import Route

        routes = [
            Route("/", self._page("runs")),
            Route("/index.json", self._page("runs", twin=True)),
            Route("/live", self._live),
            Route("/static/{file}", _static),
            Route("/runs/{run}.json", self._page("run", twin=True)),
            Route("/runs/{run}", self._page("run")),
            Route("/runs/{run}/curve.svg", self._curve),
            Route("/runs/{run}/map.svg", self._map("svg", "image/svg+xml")),
            Route("/runs/{run}/map.png", self._map("png", "image/png")),
            Route("/comparisons/{run}.json", self._page("comparison", twin=True)),
            Route("/comparisons/{run}", self._page("comparison")),
            Route("/comparisons/{run}/curves.svg", self._curves),
        ]
        for page in PAGES:
            routes.append(Route(f"/runs/{{run}}/{page}", self._page(page)))
            routes.append(Route(f"/runs/{{run}}/{page}.json", self._page(page, twin=True)))
        if self.edit:
            for name, change in CHANGES.items():
                routes.append(Route(f"/runs/{{run}}/{name}", self._change(change), methods=["POST"]))
        errors = {NotYet: self._being, AgentevolveError: self._missing, OSError: self._missing, 404: self._missing}
        return Starlette(routes=routes, exception_handlers=errors)

    def warm(self) -> None:
        """Read all runs, and what draws and counts, ahead of the first question; in a thread that nobody waits for."""
        places = self.pages.places
        for name in list(places.unread):
            with contextlib.suppress(AgentevolveError, OSError):
                places.index(name)
            places.unread.discard(name)
        compared = [name for name, place in places.names().items() if places.comparison_of(place)]
        alone = [name for name in places.names() if name not in compared]
        ahead: list[Callable[[], object]] = []
        for name in (*alone, *places.memories()):
            ahead += [partial(self.pages.memory, name, {}), partial(self._first_map, name), partial(self._first_entry, name)]
        ahead += [partial(self.pages.comparison, name, {}) for name in places.comparisons()]
        for name in (*alone, *compared):
            ahead += [partial(self.pages.run, name, {}), partial(self.pages.policies, name, {}), partial(self.pages.curve, name)]
        ahead += [partial(self._words, name) for name in alone]
        with self.pages.soon.waiting():
            for make in ahead:
                self._let_pass()
                with contextlib.suppress(AgentevolveError, OSError):
                    make()

    def _let_pass(self) -> None:
        """Wait until nobody was answered for a while, but not for ever: whoever asks comes first."""
        for _ in range(int(LONGEST / YIELD)):
            if not self._answering and time.monotonic() - self._answered > STILL:
                return
            time.sleep(YIELD)

    @contextlib.contextmanager
    def _first(self) -> Iterator[None]:
        with self._lock:
            self._answering += 1
        try:
            yield
        finally:
            with self._lock:
                self._answering -= 1
                self._answered = time.monotonic()

    def _words(self, name: str) -> None:
        self.pages.places.index(name).update_words()

    def _first_entry(self, name: str) -> None:
        for one in self.pages.memory(name, {})["rows"][:1]:
            self.pages.entry(name, {"id": one["id"], "seed": str(one["seed"])})

    def _first_map(self, name: str) -> None:
        self.pages.drawn(name, {}, self.pages.map(name, {})["form"])

    def _page(self, page: str, *, twin: bool = False) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            from starlette.responses import HTMLResponse, RedirectResponse

            query = dict(request.query_params)
            if "" in query.values():  # what a form sends of fields that were left empty is no part of the address
                kept = {name: value for name, value in query.items() if value}
                return RedirectResponse(f"{request.url.path}?{urlencode(kept)}" if kept else request.url.path, 303)
            before = request.state.before = self.pages.grown(request.path_params.get("run", ""))
            with self._first():
                values = self._values(page, request, query)
            if twin:
                return _json(values)
            if values.get("asked", {}).get("press") == "closer" and "closer" in values["ways"] and "x" in query:
                return RedirectResponse(f"{request.url.path}?{values['ways']['closer']}", 303)
            if page == "run" and values["alone"]:
                return RedirectResponse(f"{request.url.path}/memory", 303)
            return HTMLResponse(templates.page(page, values, **self._around(page, request, values, query, before)))

        return answer

    def _values(self, page: str, request: Request, query: Mapping[str, str]) -> dict[str, Any]:
        if page == "runs":
            return self.pages.runs(query)
        make: Callable[[str, Mapping[str, str]], dict[str, Any]] = getattr(self.pages, page)
        return make(request.path_params["run"], query)

    def _around(
        self, page: str, request: Request, values: Mapping[str, Any], query: Mapping[str, str], before: str
    ) -> dict[str, Any]:
        """What a page needs beside its values; `before` is how far the runs had grown when it was begun."""
        path = request.url.path
        asked = f"?{request.url.query}" if request.url.query else ""
        run = request.path_params.get("run")
        around: dict[str, Any] = {
            "nonce": request.scope.get("nonce", ""),
            "address": f"{path}{asked}",
            "twin": f"{'/index' if path == '/' else path}.json{asked}",
            "here": {"run": "", "attempt": "attempts", "compare": "attempts", "entry": "memory", "map": "memory"}.get(page, page),
            "live": f"/live?{urlencode({'run': run or '', 'since': before})}" if _under_way(values) else "",
            "static": False,
            "edit": self.edit,
            "longest_note": NOTE,
        }
        if page in LISTS:
            kind, sorts = LISTS[page]
            filter = attempts.asked_of(query, kind)
            around |= {"filter": filter, "sorts": sorts, "said_filter": bool(filter.query())}
        if page == "run":
            around["picture"] = templates.link(values["name"], "curve.svg") if values["curve"] else ""
        if page == "comparison":
            around["picture"] = templates.compared(values["comparison"], "curves.svg") if values["curve"] else ""
        return around

    def _curve(self, request: Request) -> Response:
        from starlette.responses import Response

        return Response(self.pages.curve(request.path_params["run"]), media_type="image/svg+xml")

    def _map(self, form: str, kind: str) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            from starlette.responses import Response

            drawn = self.pages.drawn(request.path_params["run"], dict(request.query_params), form)
            return Response(drawn, media_type=kind)

        return answer

    def _curves(self, request: Request) -> Response:
        from starlette.responses import Response

        return Response(self.pages.curves(request.path_params["run"]), media_type="image/svg+xml")

    async def _live(self, request: Request) -> Response:
        from starlette.responses import StreamingResponse

        grown = partial(self.pages.grown, request.query_params.get("run", ""))
        known = request.headers.get("last-event-id", "") or request.query_params.get("since", "")
        known = known if GROWN.fullmatch(known) else await asyncio.to_thread(grown)
        return StreamingResponse(_events(request, grown, known), media_type="text/event-stream")

    def _change(self, change: Change) -> Callable[[Request], Awaitable[Response]]:
        """Carry out what a form asks of an entry, and lead to the entry that it is then."""

        async def answer(request: Request) -> Response:
            from starlette.responses import RedirectResponse

            said = {key: values[0] for key, values in parse_qs(await _form(request), keep_blank_values=True).items()}
            name, seed = request.path_params["run"], number(said, "seed") or 0
            id = await asyncio.to_thread(self._changed, name, seed, change, said)
            return RedirectResponse(templates.link(name, "entry", id=id, seed=seed), 303)

        return answer

    def _changed(self, name: str, seed: int, change: Change, said: Mapping[str, str]) -> str:
        """Change the memory from its last round on. Raises AgentevolveError while somebody else writes in it."""
        index = self.pages.places.index(name)
        if seed not in index.folders:
            raise AgentevolveError(f"there is no seed {seed}")
        with open_memory(index.memory(seed), create=False) as memory:
            last = max((one.round for one in memory.entries()), default=0)
            id = change(memory, last, said.get("id", ""), said)
        self.pages.read_again(name)
        return id

    async def _being(self, request: Request, error: Exception) -> Response:
        """What is being made: a page that says so, and is told when it is there."""
        from starlette.responses import HTMLResponse, Response

        if request.url.path.endswith(".json"):
            return _json({"state": str(error)}, 202)
        run, compared = request.path_params.get("run", ""), request.url.path.startswith("/comparisons/")
        if request.url.path.endswith((".svg", ".png")):
            return Response(status_code=503, headers={"retry-after": "1"})
        alone = run in self.pages.places.memories()
        around = self._around("", request, {"making": str(error)}, {}, request.state.before)
        names = {"comparison": run} if compared else {"name": run, "alone": alone}
        return HTMLResponse(templates.page("being", {"said": str(error), **names}, **around), 202)

    async def _missing(self, request: Request, error: Exception) -> Response:
        from starlette.responses import HTMLResponse

        said = str(error) if isinstance(error, AgentevolveError) else "there is no such page"
        if request.url.path.endswith(".json"):
            return _json({"error": said}, 404)
        around = {"nonce": request.scope.get("nonce", ""), "address": "", "twin": "/index.json", "live": "", "here": ""}
        return HTMLResponse(templates.page("error", {"error": said}, **around), 404)


def _retired(memory: EntryMemory, round: int, id: str, said: Mapping[str, str]) -> str:
    memory.retire(id, round, said.get("why") or "by hand")
    return id


def _quarantined(memory: EntryMemory, round: int, id: str, said: Mapping[str, str]) -> str:
    memory.quarantine(id, round, said.get("why") or "by hand")
    return id


def _restored(memory: EntryMemory, round: int, id: str, said: Mapping[str, str]) -> str:
    """The entry that says it again: itself, the one that was added, or one that is there and says the same."""
    found = memory.get(memory.restore(id, round))
    return found.id if found else id


def _annotated(memory: EntryMemory, round: int, id: str, said: Mapping[str, str]) -> str:
    memory.annotate(id, said.get("note", "").replace("\r\n", "\n").strip())
    return id


CHANGES: dict[str, Change] = {"retire": _retired, "quarantine": _quarantined, "restore": _restored, "annotate": _annotated}


async def _form(request: Request) -> str:
    """What a form has sent. Raises AgentevolveError for more than FORM bytes."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > FORM:
            raise AgentevolveError(f"a form of more than {FORM:,} bytes is not read")
    return body.decode("utf-8", "replace")


def _static(request: Request) -> Response:
    """A file of the house's own, of those that are there; no other name leads anywhere."""
    from starlette.exceptions import HTTPException
    from starlette.responses import Response

    known = {path.name: path for path in templates.STATIC.iterdir() if path.suffix in KINDS}
    path = known.get(request.path_params["file"])
    if path is None:
        raise HTTPException(404)
    return Response(path.read_bytes(), media_type=KINDS[path.suffix])


def _json(values: Mapping[str, Any], status: int = 200) -> Response:
    """The values as JSON in ASCII: what is odd in a text is there by its number."""
    from starlette.responses import Response

    return Response(json.dumps(values), status, media_type="application/json")


def _under_way(values: Mapping[str, Any]) -> bool:
    told = (values, *(one for name in ("runs", "comparisons", "memories") for one in values.get(name, ())))
    return any(one.get("state") in ("under way", "being read") or one.get("making") for one in told if isinstance(one, dict))


async def _events(request: Request, grown: Callable[[], str], known: str) -> AsyncIterator[str]:
    """An event whenever a journal has grown; a comment now and then, which finds out whether anybody still listens."""
    silent = 0.0
    yield f"id: {known}\n: here\n\n"
    while not await request.is_disconnected():
        if (now := await asyncio.to_thread(grown)) != known:
            known, silent = now, 0.0
            yield f"event: changed\nid: {now}\ndata: {now}\n\n"
        elif silent >= QUIET:
            silent = 0.0
            yield ": here\n\n"
        await asyncio.sleep(LOOK)
        silent += LOOK


def guarded(place: Path, known: frozenset[str], token: str = "", *, edit: bool = False, warm: bool = False) -> ASGIApp:
    """The inspector of the runs at or below `place`, behind its guard. Raises AgentevolveError when there is no run."""
    inspector = Inspector(Places(place), edit=edit, patience=PATIENCE if warm else None)
    if warm:
        inspector.pages.places.unread.update(inspector.pages.places.names())
        threading.Thread(target=inspector.warm, daemon=True).start()
    return Guard(inspector.app(), known, token)


def serve(place: Path, host: str, door: socket.socket, token: str = "", *, edit: bool = False) -> None:
    """Serve at `door`, which listens and is opened as `host` in the browser, until the process is told to end.

    Raises AgentevolveError as `guarded` and `hosts` do, or when the extra "view" is not installed.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError:
        raise AgentevolveError('looking at runs needs the extra "view": pip install "agentevolve[view]"') from None
    import numpy  # noqa: F401  (the first page needs it, and should not wait for it)

    templates.prepare()
    app = guarded(place, hosts(host, door.getsockname()[1], token), token, edit=edit, warm=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, server_header=False)).run(sockets=[door])
