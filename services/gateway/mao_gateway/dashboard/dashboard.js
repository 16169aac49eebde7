// Shows the node: runs live through /events, the rest read again now and then. Every value from the
// node goes in as text, never as markup.
const SHOWN = 30, REFRESH = 15000;
const runs = new Map();
const byId = (id) => document.getElementById(id);

async function read(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" } });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

function cell(value, kind = "") {
  const td = document.createElement("td");
  td.textContent = value ?? "";
  td.className = kind;
  return td;
}

function fill(id, rows, whenEmpty) {
  const columns = byId(id).closest("table").querySelectorAll("th").length;
  const none = cell(whenEmpty, "none");
  none.colSpan = columns;
  const lines = rows.length ? rows : [[none]];
  byId(id).replaceChildren(...lines.map((cells) => {
    const tr = document.createElement("tr");
    tr.append(...cells);
    return tr;
  }));
}

const time = (text) => (text ? new Date(text).toLocaleString() : "");

function took(run) {
  if (!run.started_at) return "";
  const end = run.finished_at ? new Date(run.finished_at) : new Date();
  const seconds = Math.max(0, (end - new Date(run.started_at)) / 1000);
  return seconds < 90 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds / 60)} min`;
}

function why(run) {
  const step = (run.steps ?? []).find((each) => each.error || each.waiting);
  return run.error?.detail ?? step?.error?.detail ?? step?.waiting ?? run.reason ?? "";
}

function steps(run) {
  return (run.steps ?? []).map((step) => `${step.spec.name} ${step.phase}`).join(" → ");
}

function showRuns() {
  const newest = [...runs.values()].sort((a, b) => (a.created_at < b.created_at ? 1 : -1));
  for (const run of newest.slice(SHOWN)) runs.delete(run.id);
  fill("runs", newest.slice(0, SHOWN).map((run) => [
    cell(run.id, "id"), cell(run.pipeline), cell(run.phase, run.phase), cell(steps(run)),
    cell(time(run.started_at ?? run.created_at), "brief"), cell(took(run), "brief"), cell(why(run), "why"),
  ]), "No run yet: maoctl pipeline run NAME");
}

async function listRuns() {
  const page = await read(`runs?limit=${SHOWN}`);
  runs.clear();
  for (const run of page.items) runs.set(run.id, run);
  showRuns();
}

async function showJobs() {
  const { items } = await read("jobs?limit=100");
  fill("jobs", items.map((job) => [
    cell(job.id, "id"), cell(job.pipeline), cell(job.cron), cell(job.timezone),
    cell(job.paused ? "paused" : time(job.next)),
  ]), "Nothing is scheduled.");
}

async function showDatasets() {
  const { items } = await read("registry/datasets?limit=100");
  fill("datasets", items.map((each) => [cell(each.name), cell(each.master, "why"), cell(each.nodes.join(", "))]),
    "No dataset is registered.");
}

async function showMembers() {
  const { items } = await read("registry/nodes?limit=100");
  fill("members", items.map((each) => [
    cell(each.name), cell(each.version), cell(each.slots), cell(time(each.started_at)),
  ]), "No node is present.");
}

async function showStatus() {
  const status = await read("status");
  byId("node").textContent = status.node;
  byId("health").textContent = status.ready ? `ready, version ${status.version}` : "not ready";
  byId("health").className = status.ready ? "ok" : "bad";
  byId("steps").replaceChildren(...status.next.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
}

function live(text) {
  byId("live").textContent = text;
}

function follow() {
  const events = new EventSource("events");
  events.addEventListener("begin", () => { live("live"); listRuns().catch(() => {}); });
  events.addEventListener("gone", () => listRuns().catch(() => {}));
  events.addEventListener("run", (event) => {
    const run = JSON.parse(event.data);
    runs.set(run.id, run);
    showRuns();
  });
  events.addEventListener("run-removed", (event) => {
    runs.delete(JSON.parse(event.data).id);
    showRuns();
  });
  events.addEventListener("error", () => {
    live("connection lost, trying again");
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, 3000);
  });
}

async function refresh() {
  const parts = [showStatus, showJobs, showDatasets, showMembers];
  const results = await Promise.allSettled(parts.map((part) => part()));
  if (results[0].status === "rejected") {
    byId("health").textContent = "the node does not answer";
    byId("health").className = "bad";
  }
  showRuns();
}

follow();
refresh();
setInterval(refresh, REFRESH);
