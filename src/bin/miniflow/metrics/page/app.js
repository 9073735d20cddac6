// The live page: asks for the status of an engine once a second and shows it.
//
// Whatever comes from an engine (names, reasons, places) is put in as text, never as markup.
"use strict";

const PERIOD = 1000; // ms between two looks
const PATIENCE = 5000; // ms for an answer
const KEPT = 61; // looks: a minute
const SVG = "http://www.w3.org/2000/svg";

const SIGNALS = {
  1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE",
  9: "SIGKILL", 10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM",
  24: "SIGXCPU", 25: "SIGXFSZ", 31: "SIGSYS",
};
const STATES = {
  running: ["\u25cf running", "good"],
  stopping: ["\u25d0 stopping", "warn"],
  stopped: ["\u25cb stopped", "warn"],
};
const MEMORY = {
  ample: "ample",
  no_growth: "short: no new workers",
  shedding: "short: idle workers leave",
  refusing: "short: submits refused",
};

/** What was seen of one engine, oldest first: {time, status, rate, busy, late ...}. */
let looks = [];
/** The engine that is shown; "" = the only one there is. */
let chosen = nameIn(location.hash);
/** When it was seen last, as a time of day. */
let lastSeen = "";

/** The name in the part of an address behind "#"; "" if that is none. */
function nameIn(hash) {
  try {
    return decodeURIComponent(hash.slice(1));
  } catch {
    return ""; // a lone %
  }
}

const $ = (id) => document.getElementById(id);

// ---- words ----

const DASH = "\u2013";

/** A time in ns. */
function time(ns) {
  if (ns === null || ns === undefined) return DASH;
  if (ns === 0) return "0";
  const units = [[1e3, "ns", 1], [1e6, "\u00b5s", 1e3], [1e9, "ms", 1e6], [120e9, "s", 1e9], [7200e9, "min", 60e9],
    [172800e9, "h", 3600e9]];
  for (const [below, unit, size] of units) {
    if (ns < below) return `${short(ns / size)} ${unit}`;
  }
  return `${short(ns / 86400e9)} d`;
}

/** Three digits or so. */
function short(value) {
  if (value >= 100 || Number.isInteger(value)) return Math.round(value).toString();
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

const count = (value) => value.toLocaleString("en-US");

function perSecond(value) {
  if (value === null) return DASH;
  if (value >= 1e6) return `${short(value / 1e6)} M`;
  if (value >= 1e4) return `${short(value / 1e3)} k`;
  return value > 0 && value < 10 ? value.toFixed(1) : count(Math.round(value));
}

function bytes(value) {
  if (!value) return DASH;
  const mib = value / (1 << 20);
  return mib >= 1024 ? `${short(mib / 1024)} GiB` : `${short(mib)} MiB`;
}

const share = (value) => (value === null ? DASH : `${Math.round(value * 100)} %`);
const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
const words = (name) => name.replaceAll("_", " ");
const plural = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;

// ---- elements ----

function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

/** Touches the document only if something changes. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** One child of `parent` per item, kept as long as its key is there: `fresh` makes it, `update` fills it in. Of
 * items with one key the first keeps the child. */
function each(parent, items, key, fresh, update) {
  const old = new Map(Array.from(parent.children, (child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = old.get(name);
    old.delete(name);
    if (!child) {
      child = fresh(item);
      child.dataset.key = name;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    update(child, item);
  }
  for (const child of old.values()) child.remove();
}

/** A table's row that begins with a header and has cells of these classes. */
function row(classes, className = "") {
  const tr = make("tr", className);
  const th = make("th");
  th.scope = "row";
  tr.append(th, ...classes.map((name) => make("td", name)));
  return tr;
}

function fill(tr, texts) {
  texts.forEach((text, index) => {
    if (text !== null) say(tr.children[index], text);
  });
}

/** A curve of the last minute, from 0 to `top` or a bit above the most. What is not known yet is left out. */
function draw(svg, values, top) {
  const [width, height] = [KEPT - 1, 40];
  if (!svg.firstChild) {
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("preserveAspectRatio", "none");
    for (const name of ["area", "line"]) {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", name);
      svg.append(path);
    }
  }
  const begin = values.findIndex((value) => value !== null);
  const known = begin < 0 ? [] : values.slice(begin).map((value) => value ?? 0);
  const most = top ?? Math.max(1e-9, ...known) * 1.15;
  const first = KEPT - known.length;
  const points = known.map((value, index) => {
    const y = height - 1 - (Math.min(value, most) / most) * (height - 2);
    return `${first + index} ${y.toFixed(2)}`;
  });
  const line = points.length > 1 ? `M${points.join("L")}` : "";
  svg.children[0].setAttribute("d", line && `${line}V${height}H${first}Z`);
  svg.children[1].setAttribute("d", line);
}

// ---- numbers ----

const ended = (tasks) => tasks.completed + tasks.failed + tasks.crashed + tasks.timed_out + tasks.cancelled;
const sum = (items, of) => items.reduce((total, item) => total + of(item), 0);

/** The buckets of a histogram that came after an earlier one, as [end, count]. */
function since(now, before) {
  const old = new Map(before ? before.buckets : []);
  return now.buckets.map(([end, n]) => [end, Math.max(0, n - (old.get(end) ?? 0))]);
}

/** The end of the bucket that reaches the share `q`, in ns; null if the buckets are empty. */
function quantile(buckets, q) {
  const rank = Math.max(1, Math.ceil(q * sum(buckets, ([, n]) => n)));
  let seen = 0;
  for (const [end, n] of buckets) {
    seen += n;
    if (seen >= rank) return end || 2 ** 37; // the last bucket has no end
  }
  return null;
}

/** Buckets of both classes, put together. */
function merge(lists) {
  const all = new Map();
  for (const [end, n] of lists.flat()) all.set(end, (all.get(end) ?? 0) + n);
  return [...all].sort(([a], [b]) => (a || Infinity) - (b || Infinity));
}

const classOf = (status, name) => status.classes.find((c) => c.class === name);

/** The look that is `seconds` old, or the oldest; undefined for all time, or if there is none but the last. */
function earlier(seconds) {
  if (seconds === 0 || looks.length < 2) return undefined;
  return looks[Math.max(0, looks.length - 1 - seconds)];
}

/** How much something grew a second since an earlier look; null if that is not known. */
function rate(now, before, of) {
  if (!before) return null;
  // The engine's own time, unless it has nothing new to tell.
  const ms = now.status.at_ms - before.status.at_ms || now.time - before.time;
  const [a, b] = [of(before.status), of(now.status)];
  return ms > 0 && a !== undefined && b !== undefined ? (Math.max(0, b - a) * 1000) / ms : null;
}

/** Adds a look to the history. */
function remember(status) {
  const last = looks.at(-1);
  if (last && (last.status.pid !== status.pid || last.status.started_ms !== status.started_ms)) {
    looks = []; // another engine of the same name
  }
  const before = looks.at(-1);
  const look = { time: performance.now(), status };
  look.rate = rate(look, before, (s) => ended(s.tasks));
  look.busy = sum(status.workers, (w) => w.running);
  look.queued = sum(status.classes, (c) => c.queued);
  const times = status.classes.map((c) =>
    since(c.queue_time, before && classOf(before.status, c.class)?.queue_time));
  look.late = before ? quantile(merge(times), 0.99) : null;
  looks.push(look);
  looks = looks.slice(-KEPT);
  return look;
}

// ---- the parts of the page ----

function showHeader(status) {
  const name = status.name ?? `process ${status.pid}`;
  say($("name"), name);
  document.title = `${name} \u00b7 miniflow`;
  showState(...(STATES[status.state] ?? [status.state, "warn"]));
  const parts = [`version ${status.version}`, `process ${status.pid}`, `up ${time((status.at_ms - status.started_ms) * 1e6)}`,
    `dispatch ${words(status.policy)}`, `scaling ${words(status.scaling)}`];
  if (status.degraded) parts.push("degraded: no worker can be started");
  say($("about"), parts.join(" \u00b7 "));
  $("json").href = `status.json?engine=${encodeURIComponent(name)}`;
}

function showState(text, kind) {
  say($("state"), text);
  $("state").className = `chip ${kind}`;
}

function showTiles(look) {
  const { status } = look;
  const tile = (id, value, more, values, top) => {
    say($(id), value);
    say($(`${id}-more`), more);
    draw($(`${id}-history`), values, top);
  };
  const of = (key) => looks.map((l) => l[key]);
  const before = looks.at(-2);
  const submitted = rate(look, before, (s) => s.tasks.submitted);
  const ready = status.workers.filter((w) => w.state === "ready");
  const threads = sum(status.workers, (w) => (w.state === "starting" ? 0 : w.threads));
  tile("rate", perSecond(look.rate), `${perSecond(submitted)} submitted`, of("rate"));
  tile("queued", count(look.queued), `${count(sum(status.classes, (c) => c.on_workers))} on workers`, of("queued"));
  tile("busy", `${count(look.busy)} of ${count(threads)}`, `${plural(ready.length, "worker")} ready`, of("busy"), threads || 1);
  const shown = [...looks].reverse().find((l) => l.late !== null);
  const quiet = look.late === null && shown ? ` (${Math.round((look.time - shown.time) / 1000)} s ago)` : "";
  tile("late", time(shown?.late ?? null), `from submit to start${quiet}`, of("late"));
  const machine = (key) => looks.map((l) => l.status.machine[key]);
  const measured = (value, text) => (value === null ? "not measured" : text);
  const { cpu, cpus, memory, memory_state: state } = status.machine;
  tile("cpu", share(cpu), measured(cpu, `of ${cpus}`), machine("cpu"), 1);
  tile("memory", share(memory), measured(memory, MEMORY[state] ?? words(state)), machine("memory"), 1);
}

function showClasses(look) {
  const before = earlier(Number($("span").value));
  const cells = ["", "number", "number wide", "number wide", "number", "number wide", "number", "number wide"];
  const fresh = (c) => {
    const tr = row(cells, c.class);
    tr.children[1].append(make("span"), make("span", "wide muted"));
    return tr;
  };
  each($("classes"), look.status.classes, (c) => c.class, fresh, (tr, c) => {
    const old = before && classOf(before.status, c.class);
    const [queue, run] = [since(c.queue_time, old?.queue_time), since(c.run_time, old?.run_time)];
    const [workers, more] = tr.children[1].children;
    say(workers, c.workers === c.target ? `${c.workers}` : `${c.workers} of ${c.target}`);
    const details = [];
    if (c.starting) details.push(`${c.starting} starting`);
    if (c.min !== c.max) details.push(`${c.min} to ${c.max}`);
    say(more, details.length ? ` (${details.join(", ")})` : "");
    fill(tr, [
      c.class,
      null,
      count(c.queued),
      time(c.oldest_ns),
      time(quantile(queue, 0.5)),
      time(quantile(queue, 0.99)),
      time(quantile(run, 0.5)),
      time(quantile(run, 0.99)),
      perSecond(rate(look, looks.at(-2), (s) => classOf(s, c.class)?.run_time.count)),
    ]);
  });
}

function showWorkers(look) {
  const cells = ["", "load", "number", "number wide", "number", ...Array(4).fill("number wide")];
  const fresh = (w) => {
    const tr = row(cells, w.class);
    const bar = make("div", "bar");
    const cell = make("i", w.threads <= 32 ? "cells" : "");
    const text = make("span");
    text.append(make("b"), make("span", "words", " threads"));
    bar.append(cell, text);
    tr.children[2].append(bar);
    return tr;
  };
  const workers = look.status.workers;
  each($("workers"), workers, (w) => `${w.slot}/${w.incarnation}`, fresh, (tr, w) => {
    const mine = (s) => s.workers.find((o) => o.slot === w.slot && o.incarnation === w.incarnation)?.completed;
    fill(tr, [
      `${w.class} ${w.slot}`,
      w.state,
      null,
      count(w.queued),
      count(w.completed),
      perSecond(rate(look, looks.at(-2), mine)),
      w.completed ? time(w.service_ns) : DASH,
      w.cpu_ns ? share(w.cpu_permille / 1000) : DASH,
      bytes(w.rss_bytes),
      w.pid ? String(w.pid) : DASH,
    ]);
    const bar = tr.querySelector("i");
    bar.style.setProperty("--threads", w.threads);
    bar.style.setProperty("--share", `${(100 * w.running) / Math.max(1, w.threads)}%`);
    say(tr.querySelector("b"), `${w.running}/${w.threads}`);
  });
  $("workers-none").hidden = workers.length > 0;
}

function showTotals({ tasks }) {
  const totals = [["Submitted", tasks.submitted], ["Completed", tasks.completed], ["Failed", tasks.failed],
    ["Crashed", tasks.crashed], ["Timed out", tasks.timed_out], ["Cancelled", tasks.cancelled],
    ["Refused", tasks.would_block], ["Retried", tasks.retried], ["Workers started", tasks.spawned],
    ["Workers died", tasks.died], ["Not fetched", tasks.unpolled]];
  const bad = new Set(["Crashed", "Workers died"]);
  const fresh = () => {
    const pair = make("div");
    pair.append(make("dt"), make("dd"));
    return pair;
  };
  each($("totals"), totals, ([name]) => name, fresh, (pair, [name, value]) => {
    say(pair.children[0], name);
    say(pair.children[1], count(value));
    pair.children[1].className = bad.has(name) && value > 0 ? "bad" : "";
  });
}

/** A list of what happened, newest first: when, what, and why. */
function showLog(id, entries) {
  const fresh = () => {
    const item = make("li");
    item.append(make("time"), make("b"), make("p"));
    return item;
  };
  const newest = [...entries].reverse();
  each($(id), newest, (entry) => `${entry.at_ms}/${entry.what}/${entry.why}`, fresh, (item, { at_ms, what, why }) => {
    const [when, bold, text] = item.children;
    when.dateTime = new Date(at_ms).toISOString();
    say(when, clock(at_ms));
    say(bold, what);
    say(text, why);
  });
  $(`${id}-none`).hidden = entries.length > 0;
}

function showDecisions(status) {
  const arrow = { grow: "\u25b2", shrink: "\u25bc", resize: "\u25c6", failure: "\u2715" };
  showLog("decisions", status.decisions.map((d) => ({
    at_ms: d.at_ms,
    what: `${arrow[d.action] ?? ""} ${d.class}: ${d.action === "failure" ? `stays at ${d.before}` : `${d.before} \u2192 ${d.after}`}`,
    why: d.reason,
  })));
}

const signalName = (signal) => (signal ? SIGNALS[signal] ?? `signal ${signal}` : "no signal");

function showCrashes(status) {
  showLog("crashes", status.crashes.map((c) => {
    const cause = c.signal ? signalName(c.signal) : c.exit_code ? `exit ${c.exit_code}` : "unknown cause";
    const why = [`process ${c.pid}`, `after ${time(c.uptime_ms * 1e6)}`, `${plural(c.started, "task")} started`];
    if (c.returned) why.push(`${c.returned} went elsewhere`);
    if (c.task) why.push(`by task ${c.task}`);
    if (c.place) why.push(c.place);
    return { at_ms: c.at_ms, what: `${c.class} ${c.worker}: ${cause}`, why: why.join(", ") };
  }));
  const signals = status.signals.map((s) => `${signalName(s.signal)} ${count(s.deaths)}`);
  say($("signals"), signals.join(", "));
}

function showNotes({ notes: told, classes }) {
  const broken = classes.filter((c) => c.broken).map((c) => `No ${c.class} worker can be started: ${c.broken}`);
  const placed = classes.filter((c) => c.placement !== "none").map((c) => `Workers of class ${c.class}: ${c.placement}`);
  const notes = [...broken, ...told, ...placed];
  each($("notes"), notes, (note) => note, () => make("li"), (item, note) => say(item, note));
  $("notes-none").hidden = notes.length > 0;
}

function show(status) {
  const look = remember(status);
  document.body.classList.remove("stale");
  $("banner").hidden = true;
  showHeader(status);
  showTiles(look);
  showClasses(look);
  showWorkers(look);
  showTotals(status);
  showDecisions(status);
  showCrashes(status);
  showNotes(status);
  lastSeen = clock(Date.now());
  say($("seen"), `as of ${lastSeen}`);
}

/** The engine or the server does not answer: what is known stays, marked as old. */
function showGone(state, reason) {
  document.body.classList.add("stale");
  showState(state, "bad");
  document.title = `${state.slice(2)} \u00b7 ${$("name").textContent}`;
  const last = lastSeen ? ` What you see is how it was at ${lastSeen}.` : "";
  say($("banner"), `${reason}${last}`);
  $("banner").hidden = false;
}

// ---- asking ----

class NoAnswer extends Error {}

/** Whether all is well, and what the server says. */
async function ask(path) {
  try {
    const answer = await fetch(path, { signal: AbortSignal.timeout(PATIENCE), cache: "no-store" });
    return [answer.ok, await answer.text()];
  } catch {
    throw new NoAnswer();
  }
}

/** Which engines there are; one of several can be chosen. */
async function lookAtEngines() {
  const [ok, text] = await ask("engines.json");
  if (!ok) return;
  const names = JSON.parse(text);
  if (!chosen && names.length > 0) chosen = names[0];
  if (chosen && !names.includes(chosen)) names.push(chosen); // gone, and may come back
  const option = () => make("option");
  each($("engines"), names, (name) => name, option, (item, name) => {
    item.value = name;
    say(item, name);
    item.selected = name === chosen;
  });
  $("chooser").hidden = names.length < 2;
}

async function look() {
  try {
    await lookAtEngines();
    const of = chosen;
    const [ok, text] = await ask(`status.json${of && `?engine=${encodeURIComponent(of)}`}`);
    if (of !== chosen) return; // another was chosen meanwhile
    if (ok) show(JSON.parse(text));
    else showGone("\u25cb gone", `The engine is gone: ${text.trim()}.`);
  } catch (error) {
    if (error instanceof NoAnswer) {
      showGone("\u25cb no answer", "The server of this page does not answer; trying again.");
    } else {
      console.error(error);
      showGone("\u25cb not shown", `This page does not understand what it is told: ${error.message}.`);
    }
  }
}

async function run() {
  for (;;) {
    const start = performance.now();
    await look();
    const rest = PERIOD - (performance.now() - start);
    await new Promise((next) => setTimeout(next, Math.max(100, rest)));
  }
}

$("engines").addEventListener("change", (event) => {
  chosen = event.target.value;
  location.hash = encodeURIComponent(chosen);
  looks = [];
  lastSeen = "";
  look();
});
$("span").addEventListener("change", () => {
  if (looks.length) showClasses(looks.at(-1));
});
run();
