// Keeps a page current: after an event of a run, again when its output has been analysed, and once a minute, it
// loads the page again and replaces the parts marked `data-live` whose text has changed. Whoever types or has opened something is not disturbed.
const WAIT = 1000, ANALYSED_AFTER = 5000, EVERY = 60000, RECONNECTS_AFTER = 10000;
const live = document.getElementById("live");
let last = null, timer = null, second = null, lost = null;

function say() {
  if (!live) return;
  if (lost) live.textContent = `not live for ${Math.round((Date.now() - lost) / 1000)} s`;
  else if (last) live.textContent = `live, last event ${Math.round((Date.now() - last) / 1000)} s ago`;
  else live.textContent = "live";
}

// Every page has new keys in its forms (macro `once`): they alone are no change.
function textOf(part) {
  return part.innerHTML.replace(/(name="idempotency_key" value=)"[^"]*"/g, "$1");
}

function isUsed(part) {
  if (part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")) return true;
  return [...part.querySelectorAll("details[open]")].some((each) => !each.dataset.open);
}

async function refresh() {
  timer = null;
  if (document.hidden) return;
  const answer = await fetch(location.href, { headers: { accept: "text/html" } }).catch(() => null);
  if (!answer?.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(part.id);
    if (next && textOf(next) !== textOf(part) && !isUsed(part)) part.replaceWith(next);
  }
  document.dispatchEvent(new Event("mao-refreshed"));
}

function soon() {
  last = Date.now();
  timer ??= setTimeout(refresh, WAIT);
  clearTimeout(second);
  second = setTimeout(refresh, ANALYSED_AFTER); // an alarm of a run is raised after the run has ended
  say();
}

const stream = new EventSource("/events");
for (const kind of ["run", "run-removed", "gone"]) stream.addEventListener(kind, soon);
// What changed between the page and the beginning of the stream is in neither.
stream.addEventListener("begin", (event) => {
  if (JSON.parse(event.data).revision > Number(live?.dataset.revision ?? 0)) timer ??= setTimeout(refresh, WAIT);
});
stream.addEventListener("open", () => { lost = null; say(); });
stream.addEventListener("error", () => { lost ??= Date.now(); say(); });
setInterval(say, RECONNECTS_AFTER);
setInterval(() => { timer ??= setTimeout(refresh, 0); }, EVERY);
document.addEventListener("visibilitychange", () => { if (!document.hidden) timer ??= setTimeout(refresh, 0); });
