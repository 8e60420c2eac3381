"""The example page that watches an execution: self-contained, complete, and let in as it asks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from harmonia_actors.core.events import FINAL_EVENT_TYPES, Event, TaskLog
from harmonia_actors.settings import Settings
from harmonia_serve.app import build_app
from tests.unit.serve.conftest import connect
from tests.unit.serve.gateway import MemoryGateway

TEXT = (Path(__file__).parents[3] / "examples" / "watch.html").read_text(encoding="utf-8")
SITE = "http://127.0.0.1:8080"
VOID = ("meta", "input", "br", "link", "img")


class Page(HTMLParser):
    """What the page is made of; every element that is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.addresses: list[str] = []
        self.script = ""
        self.feed(TEXT)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                assert value not in self.ids
                self.ids.add(value or "")
            elif name in ("src", "href", "action", "srcset", "data"):
                self.addresses.append(value or "")
            assert not name.startswith("on"), "its rules for scripts are in one place"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.script += data


@pytest.fixture(scope="module")
def page() -> Page:
    return Page()


def listed(script: str, name: str) -> list[str]:
    """The texts of an array of the script."""
    found = re.search(rf"const {name} = \[([^\]]*)\]", script)
    assert found is not None
    return re.findall(r'"(\w+)"', found[1])


def test_it_is_whole_and_loads_nothing(page: Page) -> None:
    assert page.open == []
    assert page.addresses == []
    assert re.findall(r"url\(|@import|<link|<img", TEXT) == []
    assert "default-src 'none'" in TEXT


def test_what_its_script_looks_for_is_there(page: Page) -> None:
    sought = set(re.findall(r'byId\("(\w+)"\)', page.script))
    assert sought - page.ids == set()


def test_what_a_service_sends_is_text_to_it_and_the_key_stays_in_the_form(page: Page) -> None:
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Storage"):
        assert word not in page.script
    assert page.script.count('byId("key")') == 1


def test_it_listens_to_every_type_of_event_there_is(page: Page) -> None:
    # But for log lines, which nobody gets who does not ask for them.
    kinds = {kind.type for kind in get_args(Event)} - {TaskLog.type}
    assert sorted(listed(page.script, "TYPES")) == sorted(kinds)
    assert set(listed(page.script, "FINAL")) == FINAL_EVENT_TYPES


NODE = shutil.which("node") or ""


@pytest.mark.skipif(not NODE, reason="runs the page's script with node")
def test_its_script_takes_each_event_in_once(page: Page) -> None:
    task = {"task_name": "a", "task_index": 0, "total_tasks": 2}
    events = [
        ("execution_started", {"workflow_name": "w"}),
        ("task_started", {**task, "attempt": 1}),
        ("task_progress", {"task_name": "a", "progress": 0.5, "message": "half"}),
        ("task_failed", {**task, "attempt": 1, "error": "it broke", "will_retry": True}),
        ("task_started", {**task, "attempt": 2}),
        ("task_completed", {**task, "attempt": 2, "output": {}}),
    ]
    log = [
        {"seq": seq, "type": kind, "timestamp_ms": 1_000 * seq, "data": data}
        for seq, (kind, data) in enumerate(events, 1)
    ]
    rules = page.script[: page.script.index("// A stream of an execution's events")]
    sent = [*log[:4], *log[1:]]
    told = f"""
        const execution = new Execution();
        for (const event of {json.dumps(sent)}) execution.take(event);
        const {{ counts, share }} = execution.summary();
        const [task] = execution.tasks.values();
        console.log(JSON.stringify([execution.seq, execution.repeats, counts, share, task]));
    """
    ran = subprocess.run(
        [NODE, "-"], input=rules + told, capture_output=True, text=True, timeout=60, check=True
    )
    subprocess.run([NODE, "--check", "-"], input=page.script, text=True, timeout=60, check=True)
    seq, repeats, counts, share, shown = json.loads(ran.stdout)
    assert (seq, repeats) == (6, 3)
    assert (counts, share) == ({"completed": 1, "pending": 1}, 0.5)
    assert shown == {
        "name": "a",
        "status": "completed",
        "share": 1,
        "message": "",
        "from": 5_000,
        "to": 6_000,
    }


#: What the script needs of a browser. Pauses end at once and are counted; `answers` is what fetch
#: comes to, one after the other.
BROWSER = """
    const element = () => new Proxy(function () {}, {
        get: (_, name) => name === "appendChild" ? (child) => child : name === Symbol.toPrimitive
            ? () => "" : element(),
        set: () => true, apply: () => element(),
    });
    globalThis.document = { getElementById: element, createElement: element };
    globalThis.location = { origin: "http://page.example", hash: "" };
    const pauses = [], sources = [], said = [], fetched = [];
    globalThis.setTimeout = (work, ms) => {
        if (ms === 2000) { pauses.push(ms); queueMicrotask(work); }
    };
    globalThis.EventSource = class {
        static CLOSED = 2;
        constructor(url) { this.url = url; this.readyState = 0; sources.push(this); }
        addEventListener() {}
        close() { this.readyState = 2; this.closed = true; }
        open() { this.readyState = 1; this.onopen(); }
        refuse() { this.readyState = 2; return this.onerror(); }
    };
    globalThis.fetch = async (url, { signal }) => {
        fetched.push(url);
        const answer = answers.shift();
        if (answer === "away") throw new TypeError("Failed to fetch");
        const [status, body] = answer;
        return { status, json: async () => JSON.parse(body), signal };
    };
"""
ENVELOPE = json.dumps({"error": {"code": "x", "message": "No such key", "details": {}}})


def watched(page: Page, answers: list[object], acts: str) -> dict[str, Any]:
    """What comes of a watch: what it said last, how often it paused, and opened a stream."""
    told = f"""
        const answers = {json.dumps(answers)};
        {BROWSER}
        {page.script}
        (async () => {{
            const watch = watched = new Watch("http://s", "k", "exec-1");
            {acts}
            console.log(JSON.stringify({{
                said: watch.problem, pauses: pauses.length, streams: sources.length,
                asked: fetched.length === 0 || new Set([...fetched, sources[0].url]).size === 1,
                left: answers.length,
            }}));
        }})();
    """
    ran = subprocess.run(
        [NODE, "-"], input=told, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


#: A stream that was there, and then is refused as often as there are answers.
OPENED = "sources[0].open(); sources[0].onerror();"
REFUSED = "await sources.at(-1).refuse(); await null;"


@pytest.mark.skipif(not NODE, reason="runs the page's script with node")
@pytest.mark.parametrize("status", [401, 403, 404, 422])
def test_it_asks_no_more_once_it_is_refused_for_good(page: Page, status: int) -> None:
    found = watched(page, [[status, ENVELOPE]], OPENED + REFUSED)
    assert found == {"said": "No such key", "pauses": 0, "streams": 1, "asked": True, "left": 0}


@pytest.mark.skipif(not NODE, reason="runs the page's script with node")
def test_it_asks_again_while_the_service_is_away_until_it_is_refused(page: Page) -> None:
    """A proxy's own pages, and answers that a page may not read, are no refusals."""
    answers = ["away", [503, ENVELOPE], [404, "<html>"], [500, ""], [429, ENVELOPE], [200, ""]]
    found = watched(page, answers, OPENED + REFUSED * 6)
    assert (found["said"], found["left"]) == ("The service is away; asking again …", 0)
    assert (found["pauses"], found["streams"]) == (6, 7)
    found = watched(page, [*answers, [401, ENVELOPE]], OPENED + REFUSED * 7)
    assert (found["said"], found["pauses"], found["left"]) == ("No such key", 6, 0)


@pytest.mark.skipif(not NODE, reason="runs the page's script with node")
def test_what_was_never_there_is_said_to_be_refused(page: Page) -> None:
    assert watched(page, [[404, ENVELOPE]], REFUSED)["said"] == "No such key"
    found = watched(page, ["away"], REFUSED)
    assert "HARMONIA_ALLOWED_ORIGINS names http://page.example" in found["said"]
    assert (found["pauses"], found["streams"]) == (0, 1)


@pytest.mark.skipif(not NODE, reason="runs the page's script with node")
def test_a_watch_that_was_stopped_meanwhile_says_nothing_more(page: Page) -> None:
    acts = OPENED + "const last = sources[0].refuse(); watch.stop(); await last; await null;"
    found = watched(page, ["away"], acts)
    assert (found["pauses"], found["streams"]) == (0, 1)


# What the service says to such a page ------------------------------------------------------------


async def ask(
    gateway: MemoryGateway, path: str, origin: str | None, **headers: str
) -> httpx.Response:
    """As a browser asks for an EventSource of a page at `origin`."""
    app = build_app(gateway, Settings(allowed_origins=(SITE, "https://other.example")))
    sent = {
        "Accept": "text/event-stream",
        "Accept-Encoding": "gzip, deflate, br, zstd",
        "Accept-Language": "en-US",
        "Cache-Control": "no-store",
        "Sec-Fetch-Dest": "empty",
        "Sec-Fetch-Mode": "cors",
        "Sec-Fetch-Site": "cross-site",
        "Referer": f"{origin}/",
        **({"Origin": origin} if origin else {}),
        **headers,
    }
    async with connect(app) as client:
        return await client.get(path, headers=sent)


async def test_an_allowed_page_reads_and_resumes(
    gateway: MemoryGateway, execution_id: str, key: str
) -> None:
    for kind in ("execution_started", "execution_completed"):
        await gateway.append(execution_id, kind, {})
    path = f"/events/harmonia/executions/{execution_id}?envelope=true&after=0&api_key={key}"
    whole = await ask(gateway, path, SITE)
    assert whole.status_code == 200
    assert whole.headers["access-control-allow-origin"] == SITE
    assert whole.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in whole.headers
    assert "content-encoding" not in whole.headers
    assert [json.loads(line[6:])["seq"] for line in whole.text.splitlines() if line[:1] == "d"] == [
        1,
        2,
    ]
    # A browser asks for the same address again, and says from where on in a header.
    rest = await ask(gateway, path, SITE, **{"Last-Event-ID": "1"})
    assert rest.text.count("event: ") == 1
    ended = await ask(gateway, path, SITE, **{"Last-Event-ID": "2"})
    assert ended.status_code == 204
    assert ended.headers["access-control-allow-origin"] == SITE


@pytest.mark.parametrize(
    ("query", "status"), [("api_key=no", 401), ("after=x&api_key={}", 422), ("api_key={}", 404)]
)
async def test_an_allowed_page_may_read_why_it_is_refused(
    gateway: MemoryGateway, key: str, query: str, status: int
) -> None:
    path = f"/events/harmonia/executions/exec-{'0' * 8}-0000-4000-8000-{'0' * 12}?"
    answer = await ask(gateway, path + query.format(key), SITE)
    assert (answer.status_code, answer.headers["vary"]) == (status, "Origin")
    assert answer.headers["access-control-allow-origin"] == SITE
    assert "access-control-allow-credentials" not in answer.headers
    for origin in ("https://evil.example", None):
        answer = await ask(gateway, path + query.format(key), origin)
        assert "access-control-allow-origin" not in answer.headers
    async with connect(build_app(gateway, Settings()), key) as client:
        answer = await client.get(path, headers={"Origin": SITE})
    assert {"vary", "access-control-allow-origin"}.isdisjoint(answer.headers)


async def test_an_allowed_page_may_read_that_something_went_wrong(
    gateway: MemoryGateway, execution_id: str, key: str
) -> None:
    gateway.failure = ZeroDivisionError("unforeseen")
    path = f"/events/harmonia/executions/{execution_id}?api_key={key}"
    answer = await ask(gateway, path, SITE)
    assert (answer.status_code, answer.headers["vary"]) == (500, "Origin")
    assert answer.headers["access-control-allow-origin"] == SITE


async def test_an_origin_may_be_written_as_people_write_it(
    monkeypatch: pytest.MonkeyPatch, gateway: MemoryGateway, execution_id: str, key: str
) -> None:
    monkeypatch.setenv("HARMONIA_ALLOWED_ORIGINS", f"{SITE.upper()}/")
    await gateway.append(execution_id, "execution_completed", {})
    async with connect(build_app(gateway, Settings()), key) as client:
        path = f"/events/harmonia/executions/{execution_id}"
        answer = await client.get(path, headers={"Origin": SITE})
    assert answer.headers["access-control-allow-origin"] == SITE


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:8081", "https://evil.example", "null", f"{SITE}.evil", None]
)
async def test_no_other_page_is_shown_anything(
    gateway: MemoryGateway, execution_id: str, key: str, origin: str | None
) -> None:
    await gateway.append(execution_id, "execution_completed", {})
    path = f"/events/harmonia/executions/{execution_id}?api_key={key}"
    assert "access-control-allow-origin" not in (await ask(gateway, path, origin)).headers


async def test_no_page_at_all_is_allowed_unless_it_is_named(
    gateway: MemoryGateway, execution_id: str, key: str
) -> None:
    await gateway.append(execution_id, "execution_completed", {})
    async with connect(build_app(gateway, Settings()), key) as client:
        path = f"/events/harmonia/executions/{execution_id}"
        answer = await client.get(path, headers={"Origin": SITE})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers
