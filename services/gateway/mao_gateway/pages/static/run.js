// Follows the log of a run: reads the stream of the API and appends what comes as text. It stops while the
// reader looks at earlier lines, and keeps the newest lines only.
const MAX_LINES = 3000, MAX_CHARS = 2000, NEAR_END = 48, RETRY_AFTER = 2000;
const HARMFUL = /[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const region = document.getElementById("log-lines");
const list = document.getElementById("log-list");
const says = document.getElementById("log-follows");
let offset = 0, line = null, address = "", stopper = null, isPaused = false;

const escaped = (char) => char === "\r" ? "\\r" : char === "\n" ? "\\n"
  : char.charCodeAt(0) < 256 ? `\\x${char.charCodeAt(0).toString(16).padStart(2, "0")}` : `\\u${char.charCodeAt(0).toString(16)}`;

function say(text, isLive) {
  says.replaceChildren(document.createTextNode(text));
  says.className = `state small ${isLive ? "s-run" : "s-off"}`;
}

function isAtEnd() {
  return region.scrollHeight - region.scrollTop - region.clientHeight < NEAR_END;
}

// As a terminal shows it: what a carriage return overwrites is dropped, and what is too long is counted.
function extend(part) {
  let text = line.text + part;
  const over = text.replace(/\r+$/, "").lastIndexOf("\r");
  if (over >= 0) { text = text.slice(over + 1); line.rest = 0; line.isCut = true; }
  if (text.length > MAX_CHARS) { line.rest += text.length - MAX_CHARS; text = text.slice(0, MAX_CHARS); }
  line.text = text;
}

function draw() {
  if (!line.item) {
    line.item = document.getElementById(`L${line.number}`) ?? document.createElement("li");
    line.item.id = `L${line.number}`;
    const no = document.createElement("span"), out = document.createElement("span");
    no.className = "no"; no.textContent = line.number; out.className = "out";
    line.item.replaceChildren(no, out);
    list.append(line.item);
  }
  const shown = line.text.replace(/\r+$/, "").replace(HARMFUL, escaped);
  const more = line.rest ? ` … ${line.rest} more characters in the download` : "";
  line.item.lastChild.textContent = (line.isCut ? "… " : "") + shown + more;
}

function begin(number) { line = { number, text: "", rest: 0, isCut: false, item: null }; }

function take(text) {
  document.getElementById("log-nothing")?.remove();
  let parts = text.split("\n");
  if (parts.length > MAX_LINES) {
    begin(line.number + parts.length - MAX_LINES);
    parts = parts.slice(-MAX_LINES);
    list.replaceChildren();
  }
  parts.forEach((part, index) => {
    if (part || index < parts.length - 1) { extend(part); draw(); }
    if (index < parts.length - 1) begin(line.number + 1);
  });
  while (list.children.length > MAX_LINES) list.firstChild.remove();
  const before = Number(list.firstElementChild?.id.slice(1) ?? 1) - 1, earlier = document.getElementById("log-earlier");
  earlier.hidden = before < 1;
  earlier.firstElementChild.textContent = `${before} earlier line${before === 1 ? "" : "s"}`;
  region.scrollTop = region.scrollHeight;
}

// The stream's events: `id` is the offset after the text, `data` the text as JSON; the last one is named `end`.
function read(block) {
  const event = { name: "", data: "" };
  for (const row of block.split("\n")) {
    if (row.startsWith("id:")) event.id = Number(row.slice(3).trim());
    else if (row.startsWith("event:")) event.name = row.slice(6).trim();
    else if (row.startsWith("data:")) event.data += row.slice(5).trim();
  }
  if (event.data) { const text = JSON.parse(event.data); if (text) take(text); }
  if (event.id !== undefined) offset = event.id;
  return event.name === "end";
}

async function follow() {
  const own = stopper = new AbortController();
  say("follows", true);
  try {
    const headers = { accept: "text/event-stream", "last-event-id": String(offset) };
    const answer = await fetch(address, { headers, signal: own.signal });
    if (!answer.ok) throw new Error(String(answer.status));
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (own !== stopper) return;
      if (done) throw new Error("the stream broke off");
      const blocks = (rest + value.replaceAll("\r\n", "\n")).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) if (read(block)) { stopper = null; address = ""; say("ended", false); return; }
    }
  } catch (error) {
    if (own !== stopper || own.signal.aborted) return;
    stopper = null;
    say("not live; tries again", false);
    setTimeout(() => { if (!stopper && !isPaused && address) follow(); }, RETRY_AFTER);
  }
}

function pause() {
  isPaused = true;
  const old = stopper;
  stopper = null;
  old?.abort();
  say("stopped while you read; scroll to the end to go on", false);
}

function source() { return document.getElementById("log-source").dataset.address ?? ""; }

if (region?.dataset.follow !== undefined) {
  address = source();
  offset = Number(region.dataset.offset);
  begin(Number(region.dataset.number));
  region.scrollTop = region.scrollHeight;
  follow();
  region.addEventListener("scroll", () => {
    if (!isPaused && stopper && !isAtEnd()) pause();
    else if (isPaused && isAtEnd()) { isPaused = false; if (address) follow(); }
  });
  // Unless one log was chosen, the page shows that of the latest step: go over to it once it has begun.
  document.addEventListener("mao-refreshed", () => {
    const next = source();
    if (!next || next === address || address || new URLSearchParams(location.search).get("step")) return;
    address = next; offset = 0; begin(1); list.replaceChildren();
    if (!isPaused) follow();
  });
} else if (region && !location.hash.startsWith("#L") && !new URLSearchParams(location.search).has("from")
  && !new URLSearchParams(location.search).get("q")) {
  region.scrollTop = region.scrollHeight;
}
