"""Pages of other sites, in a real Chromium, against a server that knows nothing of them.

`evil.example` resolves to this machine, as a name does whose owner wants to reach a server here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from app.service import Service
from tests.app.conftest import CHROMIUM, NEEDS_CHROMIUM, Shared

pytestmark = NEEDS_CHROMIUM

# Everything such a page may try; each result is a status, or the browser's refusal to tell
ATTACK = """
async (server) => {
  const attempt = async (path, options) => {
    try {
      const answer = await fetch(server + path, options);
      return [answer.type, answer.status, (await answer.text()).slice(0, 200)];
    } catch (error) { return ["refused", 0, ""]; }
  };
  const json = {"content-type": "application/json"};
  const body = JSON.stringify({messages: [{role: "user", content: "stored by a stranger"}]});
  const event = JSON.stringify({data: [], fn_index: 0, session_hash: "x"});
  const results = {};
  for (const credentials of ["omit", "include"]) for (const mode of ["cors", "no-cors"]) {
    const how = {credentials, mode};
    const key = (name) => `${name} ${credentials} ${mode}`;
    results[key("read")] = await attempt("/config", how);
    results[key("console")] = await attempt("/console/config", how);
    results[key("consent")] = await attempt("/api/consent", {...how, method: "POST",
      body: '{"allowed": false}'});
    results[key("chat")] = await attempt("/v1/chat/completions", {...how, method: "POST", body});
    results[key("ask")] = await attempt("/chat/questions", {...how, method: "POST",
      body: '{"question": "stored by a stranger"}'});
    results[key("conversations")] = await attempt("/chat/conversations", how);
    results[key("question")] = await attempt("/chat/questions",
      {...how, method: "POST", body: '{"question": "stored by a stranger"}'});
    results[key("event")] = await attempt("/console/gradio_api/queue/join",
      {...how, method: "POST", body: event});
    const form = new FormData();
    form.append("files", new Blob(["x".repeat(1000)]), "x.txt");
    results[key("upload")] = await attempt("/gradio_api/upload",
      {...how, method: "POST", body: form});
  }
  results["put"] = await attempt("/api/consent",
    {method: "PUT", headers: json, credentials: "include", body: '{"allowed": false}'});
  return results;
}
"""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[int]:
    """The port of another server of this machine, with an empty page at every path."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title><p>nothing here")

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.fixture(scope="module")
def deceived() -> Iterator[Browser]:
    """A browser that believes the names of the attacker."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP *.example 127.0.0.1"],
        )
        yield browser
        browser.close()


@pytest.fixture
def victim(shared: Shared, deceived: Browser) -> Iterator[Page]:
    """A person who has the chat open."""
    context = deceived.new_context()
    page = context.new_page()
    page.goto(shared.url)
    expect(page.locator("#question")).to_be_visible(timeout=30_000)
    yield page
    context.close()


def counts(service: Service) -> dict[str, int]:
    return service.workspace.store.counts()


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1", "localhost"])
def test_a_page_elsewhere_reads_nothing_and_changes_nothing(
    shared: Shared, victim: Page, elsewhere: int, name: str
) -> None:
    before = counts(shared.service)
    person = victim.context.new_page()
    person.goto(f"http://{name}:{elsewhere}/")
    results = person.evaluate(ATTACK, shared.url)
    for what, (kind, status, text) in results.items():
        assert kind in ("refused", "opaque"), (what, kind, status)
        assert text == "", what
    assert counts(shared.service) == before
    consent = victim.evaluate("() => fetch('/api/consent').then(answer => answer.json())")
    assert consent == {"allowed": True}


def test_under_a_name_that_resolves_to_this_machine_nothing_answers(
    shared: Shared, victim: Page
) -> None:
    port = shared.url.rpartition(":")[2]
    rebound = victim.context.new_page()
    for path in ("/", "/console/", "/v1/models", "/config"):
        answer = rebound.goto(f"http://evil.example:{port}{path}")
        assert answer is not None
        assert answer.status == 400
    posted = rebound.evaluate(
        "() => fetch('/gradio_api/queue/join', {method: 'POST', body: '{}'}).then(a => a.status)"
    )
    assert posted == 400


@pytest.mark.parametrize("path", ["/", "/console/", "/docs"])
def test_no_page_can_be_framed(shared: Shared, victim: Page, elsewhere: int, path: str) -> None:
    outside = victim.context.new_page()
    outside.goto(f"http://evil.example:{elsewhere}/")
    outside.evaluate(
        "(url) => new Promise(done => { const frame = document.createElement('iframe');"
        " frame.onload = done; frame.src = url; document.body.append(frame); })",
        f"{shared.url}{path}",
    )
    framed = outside.frames[-1]
    assert framed.locator("#question, #status, #swagger-ui").count() == 0


def test_a_form_elsewhere_leads_to_a_refusal(shared: Shared, victim: Page, elsewhere: int) -> None:
    before = counts(shared.service)
    outside = victim.context.new_page()
    outside.goto(f"http://evil.example:{elsewhere}/")
    with outside.expect_navigation() as navigation:
        outside.evaluate(
            "(url) => { const form = document.createElement('form'); form.method = 'post';"
            " form.action = url; form.enctype = 'text/plain'; document.body.append(form);"
            " form.submit(); }",
            f"{shared.url}/v1/chat/completions",
        )
    assert navigation.value.status == 403
    assert counts(shared.service) == before


def test_the_apis_page_loads_everything_from_here(shared: Shared, victim: Page) -> None:
    page = victim.context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(f"{shared.url}/docs")
    expect(page.get_by_text("/v1/chat/completions")).to_be_visible(timeout=30_000)
    assert all(url.startswith((shared.url, "data:")) for url in asked), asked
    assert complaints == []
