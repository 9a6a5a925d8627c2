"""The inspector's server: one address a page, its `.json` twin beside it, pictures, static files and what is new in a run.

The address is all of a page's state: it can be sent, kept and opened again. Pages are made in threads, so that a long read keeps
nobody waiting; nothing is written but the read index, unless the server was asked to `edit`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

from agentevolve.memory import EntryMemory, open_memory
from agentevolve.protocols import AgentevolveError
from agentevolve.view import attempts, memories, templates
from agentevolve.view.attempts import Asked
from agentevolve.view.maps import Placed
from agentevolve.view.memories import Wanted
from agentevolve.view.pages import Pages, number
from agentevolve.view.places import Places
from agentevolve.view.security import Guard, hosts

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

KINDS = {".css": "text/css", ".js": "text/javascript"}
LOOK = 1.0  # seconds between two looks at whether a run has grown
GROWN = re.compile(r"\d{1,9}(?:-\d{1,18}){2}")  # how far runs have grown, as `Places.grown` says it
QUIET = 15.0  # seconds after which a silent stream says that it is still there
LISTS: dict[str, tuple[type[Asked] | type[Wanted], Mapping[str, str]]] = {
    "attempts": (Asked, attempts.SORTED),
    "memory": (Wanted, memories.SORTED),
    "map": (Placed, {}),
}
PAGES = ("attempts", "attempt", "compare", "memory", "map", "entry", "policies")

Make = Callable[[Pages, str, Mapping[str, str]], dict[str, Any]]


class Inspector:
    """The pages of a folder over HTTP; `edit` lets entries be retired and restored."""

    def __init__(self, places: Places, *, edit: bool = False) -> None:
        self.pages, self.edit = Pages(places), edit

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
            routes.append(Route("/runs/{run}/retire", self._change(self._retired), methods=["POST"]))
            routes.append(Route("/runs/{run}/restore", self._change(self._restored), methods=["POST"]))
        errors = {AgentevolveError: self._missing, OSError: self._missing, 404: self._missing}
        return Starlette(routes=routes, exception_handlers=errors)

    def warm(self) -> None:
        """Read all runs, and what draws and counts, ahead of the first question; in a thread that nobody waits for."""
        places = self.pages.places
        for name in list(places.unread):
            with contextlib.suppress(AgentevolveError, OSError):
                places.index(name)
            places.unread.discard(name)
        for name in places.names():
            with contextlib.suppress(AgentevolveError, OSError):
                self.pages.run(name, {})
                self.pages.policies(name, {})
                places.index(name).update_words()
                for one in self.pages.memory(name, {})["rows"][:1]:
                    self.pages.entry(name, {"id": one["id"], "seed": str(one["seed"])})
            with contextlib.suppress(AgentevolveError, OSError):
                self.pages.curve(name)
            with contextlib.suppress(AgentevolveError, OSError):
                self.pages.drawn(name, {}, self.pages.map(name, {})["form"])
        for name in places.comparisons():
            with contextlib.suppress(AgentevolveError, OSError):
                self.pages.comparison(name, {})

    def _page(self, page: str, *, twin: bool = False) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            from starlette.responses import HTMLResponse, RedirectResponse

            query = dict(request.query_params)
            if "" in query.values():  # what a form sends of fields that were left empty is no part of the address
                kept = {name: value for name, value in query.items() if value}
                return RedirectResponse(f"{request.url.path}?{urlencode(kept)}" if kept else request.url.path, 303)
            before = self.pages.places.grown(request.path_params.get("run", ""))
            values = self._values(page, request, query)
            if twin:
                return _json(values)
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
        }
        if page in LISTS:
            kind, sorts = LISTS[page]
            filter = attempts.asked_of(query, kind)
            around |= {"filter": filter, "sorts": sorts, "said_filter": bool(filter.query())}
        if page == "run":
            around["picture"] = templates.link(values["name"], "curve.svg") if values["curve"] else ""
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

        grown = functools.partial(self.pages.places.grown, request.query_params.get("run", ""))
        known = request.headers.get("last-event-id", "") or request.query_params.get("since", "")
        known = known if GROWN.fullmatch(known) else await asyncio.to_thread(grown)
        return StreamingResponse(_events(request, grown, known), media_type="text/event-stream")

    def _change(self, change: Callable[[EntryMemory, int, str, str], str]) -> Callable[[Request], Awaitable[Response]]:
        """Carry out what a form asks of an entry, and lead to the entry that it is then."""

        async def answer(request: Request) -> Response:
            from starlette.responses import RedirectResponse

            body = (await request.body())[:10_000].decode("utf-8", "replace")
            said = {key: values[0] for key, values in parse_qs(body).items()}
            name, seed = request.path_params["run"], number(said, "seed") or 0
            id = await asyncio.to_thread(self._changed, name, seed, change, said)
            return RedirectResponse(templates.link(name, "entry", id=id, seed=seed), 303)

        return answer

    def _changed(self, name: str, seed: int, change: Callable[[EntryMemory, int, str, str], str], said: Mapping[str, str]) -> str:
        """Change the memory from its last round on. Raises AgentevolveError while somebody else writes in it."""
        index = self.pages.places.index(name)
        if seed not in index.folders:
            raise AgentevolveError(f"there is no seed {seed}")
        with open_memory(index.folders[seed] / "memory", create=False) as memory:
            last = max((one.round for one in memory.entries()), default=0)
            return change(memory, last, said.get("id", ""), said.get("why", "by hand"))

    @staticmethod
    def _retired(memory: EntryMemory, round: int, id: str, why: str) -> str:
        memory.retire(id, round, why)
        return id

    @staticmethod
    def _restored(memory: EntryMemory, round: int, id: str, why: str) -> str:
        """The entry that says it again: the one that was added, or one that is there and says the same."""
        found = memory.get(memory.restore(id, round))
        return found.id if found else id

    async def _missing(self, request: Request, error: Exception) -> Response:
        from starlette.responses import HTMLResponse

        said = str(error) if isinstance(error, AgentevolveError) else "there is no such page"
        if request.url.path.endswith(".json"):
            return _json({"error": said}, 404)
        around = {"nonce": request.scope.get("nonce", ""), "address": "", "twin": "/index.json", "live": "", "here": ""}
        return HTMLResponse(templates.page("error", {"error": said}, **around), 404)


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
    return any(
        one.get("state") in ("under way", "being read")
        for one in (values, *values.get("runs", ()), *values.get("comparisons", ()))
    )


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
    inspector = Inspector(Places(place), edit=edit)
    if warm:
        inspector.pages.places.unread.update(inspector.pages.places.names())
        threading.Thread(target=inspector.warm, daemon=True).start()
    return Guard(inspector.app(), known, token)


def serve(place: Path, host: str, port: int, token: str = "", *, edit: bool = False) -> None:
    """Serve until the process is told to end.

    Raises AgentevolveError as `guarded` and `hosts` do, or when the extra "view" is not installed.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError:
        raise AgentevolveError('looking at runs needs the extra "view": pip install "agentevolve[view]"') from None
    app = guarded(place, hosts(host, port, token), token, edit=edit, warm=True)
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=1, server_header=False)
