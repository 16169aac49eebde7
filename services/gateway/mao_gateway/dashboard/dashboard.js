// Shows the node: runs live through /events, the rest read again now and then. Every value from the
// node goes in as text, never as markup.
const SHOWN = 30, REFRESH = 15000, LOG_END = 65536;
const runs = new Map();
const byId = (id) => document.getElementById(id);

async function get(path, accept = "application/json") {
  const answer = await fetch(path, { headers: { accept } });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Error([problem.detail ?? `${path}: ${answer.status}`, problem.next].filter(Boolean).join(" "));
}

const read = async (path) => (await get(path)).json();

// Characters that turn the direction of writing or show as nothing would make a line say what it does not.
const HARMFUL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const harmless = (text) => text.replace(/\r\n/g, "\n").replace(HARMFUL, (char) =>
  `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);

function cell(value, kind = "") {
  const td = document.createElement("td");
  td.textContent = harmless(String(value ?? ""));
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

function button(text, label, whenPressed) {
  const td = cell("", "id");
  const pressed = document.createElement("button");
  pressed.type = "button";
  pressed.textContent = harmless(text);
  pressed.title = label;
  pressed.addEventListener("click", whenPressed);
  td.append(pressed);
  return td;
}

async function showLog(title, text) {
  byId("log-part").hidden = false;
  byId("log-of").textContent = title;
  byId("log").textContent = "loading …";
  try {
    byId("log").textContent = harmless(await text()) || "(empty)";
  } catch (error) {
    byId("log").textContent = error.message;
  }
  byId("log-part").scrollIntoView();
}

function ownLog(run) {
  const path = `runs/${encodeURIComponent(run)}/logs?end=${LOG_END}`;
  return showLog(`of ${run}`, async () => (await get(path, "text/plain")).text());
}

function nodeLog(node, run) {
  const query = new URLSearchParams({ node, run });
  return showLog(`of ${run} on ${node}`, async () => (await read(`federation/logs?${query}`)).text);
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
    button(run.id, "show the end of the log", () => ownLog(run.id)), cell(run.pipeline), cell(run.phase, run.phase), cell(steps(run)),
    cell(time(run.started_at ?? run.created_at), "brief"), cell(took(run), "brief"), cell(why(run), "why"),
  ]), "No runs yet: maoctl pipeline run NAME");
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
  const answer = await get("federation/nodes");
  const asOf = answer.headers.get("X-MAO-As-Of");
  const removed = answer.headers.get("X-MAO-Removed-From");
  const why = removed
    ? `this node was removed from ${removed} (maoctl federation leave, then join with a new token)`
    : "the federation does not answer";
  byId("as-of").textContent = asOf ? `${why}; as of ${time(asOf)}` : "";
  byId("as-of").className = asOf ? "bad" : "";
  const { items } = await answer.json();
  fill("members", items.map((each) => [
    cell(each.name),
    each.present ? cell(`since ${time(each.started_at)}`, "ok")
      : cell(each.last_seen ? `absent, last seen ${time(each.last_seen)}` : "absent", "bad"),
    cell(each.version), cell(each.slots || ""), cell(each.datasets.join(", ")),
  ]), "No node is present.");
}

async function showPeers() {
  const { items } = await read("federation/runs");
  fill("peers", items.map((row) => {
    const run = row.runs[0];
    const last = run ? button(run.id, "request the log from that node", () => nodeLog(row.node, run.id)) : cell("");
    return [
      cell(row.pipeline), cell(row.node, row.present ? "brief ok" : "brief bad"), last, cell(run?.phase, run?.phase),
      cell(time(run?.scheduled_for), "brief"), cell(time(row.next_tick), "brief"),
      cell(row.late ?? row.problem, row.late ? "why bad" : "why"),
    ];
  }), "No pipeline is registered.");
}

async function showPending() {
  const { items } = await read("pipeline?limit=200");
  const waiting = items.filter((each) => each.pending.length);
  byId("pending-part").hidden = waiting.length === 0;
  fill("pending", waiting.map((each) => [
    cell(each.name), cell(each.pending.join("\n"), "why"), cell(`maoctl pipeline diff ${each.name}`, "id"),
  ]), "Nothing is pending.");
}

async function showAlarms() {
  const { items } = await read("alarms?open=true&limit=50");
  fill("alarms", items.map((each) => [
    cell(each.id, "id"), cell(each.kind), cell(time(each.raised_at), "brief"),
    cell(each.over ? time(each.over) : "", "brief"), cell(each.detail, "why"),
  ]), "No alarm is open.");
}

async function showRounds() {
  const { items } = await read("registry/datasets?limit=100");
  const shared = items.filter((each) => each.nodes.length > 1).slice(0, 20);
  const rows = await Promise.all(shared.map(async ({ name }) => {
    const found = await read(`datasets/${encodeURIComponent(name)}/rounds?limit=5`).catch(() => ({ items: [] }));
    return found.items.map((round) => [
      cell(name), cell(round.round, "id"), cell(time(round.tick), "brief"),
      cell(`${round.voters} of ${round.nodes}`, round.voters < round.nodes ? "bad" : ""), cell(round.cells),
      cell(round.conflicts), cell(round.commit.slice(0, 10), "id"),
    ]);
  }));
  fill("rounds", rows.flat(), "No round has been decided yet.");
}

async function showStatus() {
  const status = await read("status");
  byId("node").textContent = status.node;
  byId("health").textContent = status.ready ? `ready, version ${status.version}` : "not ready";
  byId("health").className = status.ready ? "ok" : "bad";
  const bad = status.conditions ?? [];
  byId("conditions-part").hidden = bad.length === 0;
  fill("conditions", bad.map((each) => [
    cell(each.name, "id"), cell(each.subject), cell(each.state, each.state === "failed" ? "failed" : "lost"),
    cell(time(each.since), "brief"), cell(each.services.join(", ")), cell(each.detail, "why"), cell(each.next, "why"),
  ]), "All is well.");
  const told = new Set(bad.map((each) => each.next));
  byId("steps").replaceChildren(...status.next.filter((text) => !told.has(text)).map((text) => {
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
    live("connection lost, reconnecting");
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, 3000);
  });
}

const PARTS = {
  jobs: showJobs, datasets: showDatasets, members: showMembers, peers: showPeers, pending: showPending,
  alarms: showAlarms, rounds: showRounds,
};

async function refresh() {
  const parts = Object.entries(PARTS).map(([id, part]) =>
    part().catch((error) => fill(id, [], `Not available: ${error.message}`)));
  try {
    await showStatus();
  } catch {
    byId("health").textContent = "the node does not answer";
    byId("health").className = "bad";
  }
  await Promise.all(parts);
  showRuns();
}

byId("log-close").addEventListener("click", () => { byId("log-part").hidden = true; });
follow();
refresh();
setInterval(refresh, REFRESH);
