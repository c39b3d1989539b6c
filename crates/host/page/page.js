// The host's page: the newest report, and those since the page was opened. It asks for both lists once and then follows
// the event stream; after a break it asks again.
"use strict";

const SAMPLES_MAX = 2000, DECISIONS_MAX = 200, VM_COLORS = 12;
const STATES = [
  { key: "resident", label: "in RAM, its own" }, { key: "shared", label: "in RAM, shared" },
  { key: "swapped", label: "in swap" }, { key: "discarded", label: "given back" }, { key: "zero", label: "never touched or zero" },
];

const $ = id => document.getElementById(id);
const state = { vms: new Map(), lines: new Map(), rows: new Map(), samples: [], decisions: [], report: null, sort: ["name", 1] };

const size = bytes => {
  if (bytes == null) return "–";
  let unit = 0, value = bytes;
  while (value >= 1000 && unit < 5) { value /= 1024; unit++; }
  return (value < 10 && unit ? value.toFixed(1) : Math.round(value)) + " " + ["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit];
};
const percent = share => share == null ? "–" : (share * 100).toFixed(1) + " %";
const clock = time => new Date(time).toLocaleTimeString([], { hour12: false });

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text != null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// --- What comes from the host ---

function onReport(report) {
  const last = state.samples.at(-1);
  if (last && report.time <= last.time) return;
  state.report = report;
  state.rows = new Map(report.vms.map(row => [row.name, row]));
  const values = new Map();
  for (const row of report.vms) values.set(row.name, row);
  state.samples.push({ time: report.time, level: report.level, marks: report.decisions, rows: values, capacity: report.host.capacity });
  if (state.samples.length > SAMPLES_MAX) state.samples.shift();
  state.decisions.unshift(...report.decisions.slice().reverse());
  state.decisions.length = Math.min(state.decisions.length, DECISIONS_MAX);
  render();
}

async function request(path, options) {
  const response = await fetch(path, options);
  const body = response.status === 204 ? null : await response.json().catch(() => null);
  if (!response.ok) throw new Error(body && body.detail || response.status + " " + response.statusText);
  return body;
}

async function order(name, verb, body) {
  try {
    const json = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body ?? {}) };
    await request("/v1/vms/" + encodeURIComponent(name) + "/" + verb, json);
    say("");
    await refresh();
  } catch (error) {
    say(name + ": " + error.message);
  }
}

async function refresh() {
  const list = await request("/v1/vms");
  state.vms = new Map(list.vms.map(vm => [vm.name, vm]));
  render();
}

function follow() {
  const source = new EventSource("/v1/events");
  const on = (name, act) => source.addEventListener(name, message => {
    const data = JSON.parse(message.data);
    act(data.event ? data.data : data);
  });
  source.onopen = () => { $("link").textContent = "live"; refresh().catch(error => say(error.message)); };
  source.onerror = () => { $("link").textContent = "the host does not answer; trying again…"; };
  on("report", onReport);
  on("vm", vm => { state.vms.set(vm.name, vm); render(); });
  on("removed", gone => { state.vms.delete(gone.name); render(); });
}

// --- What is shown ---

function say(text) {
  $("problem").hidden = !text;
  $("problem").textContent = text;
}

let due = false;
function render() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => { due = false; renderFigures(); renderSubjects(); renderChart(); renderTable(); renderDecisions(); });
}

function renderFigures() {
  const report = state.report;
  if (!report) return;
  const { host, guarantees } = report;
  $("level").textContent = report.level;
  $("level").dataset.level = report.level;
  $("policy").textContent = "policy " + report.policy + (report.admission_open ? "" : ", no VM may start");
  $("reasons").textContent = report.reasons.concat(report.troubles).join(" · ");
  const ratio = host.capacity ? guarantees.limits / host.capacity : 0;
  const figures = [
    ["VMs hold", size(host.held) + " of " + size(host.capacity)], ["Their limits", size(guarantees.limits) + ", " + ratio.toFixed(1) + "×"],
    ["Host has free", size(host.available) + " of " + size(host.ram)], ["Swap", size(host.swap.used) + " of " + size(host.swap.total)],
    ["Compressed in", size(host.swap.compressed)], ["Sharing saves", host.sharing_profit == null ? "–" : size(Math.max(0, host.sharing_profit))],
    ["Pressure, some", percent(host.pressure_some)], ["Pressure, full", percent(host.pressure_full)],
  ];
  $("figures").replaceChildren(...figures.map(([name, value]) => {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", value));
    return pair;
  }));
}

function renderSubjects() {
  const select = $("subject"), names = [...state.rows.keys()].sort(), shown = [...select.options].slice(1).map(one => one.value);
  if (names.join("\n") === shown.join("\n")) return;
  const chosen = select.value;
  select.replaceChildren(element("option", "all VMs", { value: "" }), ...names.map(name => element("option", name, { value: name })));
  select.value = names.includes(chosen) ? chosen : "";
}

const vmColor = at => `hsl(${at * 360 / VM_COLORS % 360} 55% ${at % 2 ? 45 : 60}%)`;

function seriesNow() {
  if ($("stack").value === "state") return STATES.map(one => ({ ...one, color: chart.css("--" + one.key) }));
  const names = $("subject").value ? [$("subject").value] : [...state.rows.keys()].sort();
  return names.map((name, at) => ({ key: name, label: name, color: vmColor(at) }));
}

function valuesOf(sample, byState) {
  const rows = [...sample.rows.values()].filter(row => !$("subject").value || row.name === $("subject").value);
  if (!byState) return Object.fromEntries(rows.map(row => [row.name, row.pss]));
  return Object.fromEntries(STATES.map(({ key }) => [key, rows.reduce((sum, row) => sum + row[key], 0)]));
}

let hint = () => null;
function renderChart() {
  const newest = state.samples.at(-1);
  if (!newest) return;
  const byState = $("stack").value === "state", span = $("span").value * 1000, series = seriesNow();
  const seen = state.samples.filter(sample => sample.time > newest.time - span - 5000);
  const samples = seen.map(sample => ({ ...sample, values: valuesOf(sample, byState) }));
  const total = sample => series.reduce((sum, one) => sum + (sample.values[one.key] || 0), 0);
  const line = $("subject").value ? null : { value: newest.capacity, color: chart.css("--budget") };
  const most = Math.max(1 << 20, ...samples.map(total), line ? line.value : 0) * 1.05;
  hint = chart.draw($("chart"), { samples, series, from: newest.time - span, to: newest.time, most, line, size, clock });
  const entries = series.slice(0, 40).map(one => [one.color, one.label]);
  if (line) entries.push([line.color, "what the VMs may hold in RAM"]);
  $("legend").replaceChildren(...entries.map(([color, label]) => {
    const entry = element("span"), box = element("i");
    box.style.background = color;
    entry.append(box, label);
    return entry;
  }));
}

function showHint(event) {
  const sample = hint(event.offsetX), box = $("hint");
  box.hidden = !sample;
  if (!sample) return;
  const parts = seriesNow().map(one => [one.label, sample.values[one.key] || 0]).filter(([, bytes]) => bytes);
  parts.sort((one, other) => other[1] - one[1]);
  const marks = sample.marks.slice(0, 6).map(one => "• " + (one.vm ? one.vm + ": " : "") + one.reason);
  box.textContent = [clock(sample.time) + ", level " + sample.level,
    ...parts.slice(0, 8).map(([label, bytes]) => size(bytes).padStart(9) + "  " + label), ...marks].join("\n");
  box.style.left = Math.min(event.offsetX + 24, event.target.clientWidth - box.clientWidth) + "px";
  box.style.top = event.target.offsetTop + 24 + "px";
}

const COLUMNS = {
  name: one => one.vm.name, state: one => one.vm.state, limit: one => one.row ? one.row.limit : one.vm.memory, held: one => one.row?.pss,
  shared: one => one.row?.shared, ballooned: one => one.row?.ballooned, swapped: one => one.row?.swapped, working_set: one => one.row?.working_set,
  entitlement: one => one.row?.entitlement, available: one => one.row?.guest_available, pressure: one => one.row?.pressure,
};

function renderTable() {
  const [key, direction] = state.sort;
  const rows = [...state.vms.values()].map(vm => ({ vm, row: state.rows.get(vm.name) }));
  rows.sort((one, other) => {
    const [a, b] = [COLUMNS[key](one) ?? -1, COLUMNS[key](other) ?? -1];
    return (a < b ? -1 : a > b ? 1 : one.vm.name < other.vm.name ? -1 : 1) * direction;
  });
  // Lines stay what they are: a button that is being pressed must not be another one when it is let go.
  const lines = rows.map(({ vm, row }) => fill(lineOf(vm.name), vm, row));
  const body = document.querySelector("#vms tbody");
  if (lines.length !== body.children.length || lines.some((line, at) => body.children[at] !== line)) body.replaceChildren(...lines);
  for (const name of state.lines.keys()) if (!state.vms.has(name)) state.lines.delete(name);
}

const NUMBERS = ["limit", "held", "shared", "ballooned", "swapped", "working_set", "entitlement", "available", "pressure"];
const isAlive = vm => ["starting", "running", "paused", "stopping"].includes(vm.state);
const ORDERS = [
  { label: "start", can: vm => !isAlive(vm), act: name => order(name, "start") },
  { label: "stop", can: isAlive, act: name => order(name, "stop") },
  { label: "balloon", can: vm => vm.state === "running", act: askBalloon },
];

function lineOf(name) {
  if (state.lines.has(name)) return state.lines.get(name);
  const line = element("tr"), orders = element("td");
  line.append(element("td", name), element("td"), element("td"), ...NUMBERS.map(() => element("td", null, { class: "number" })));
  for (const { label, act } of ORDERS) {
    const button = element("button", label, { "data-order": name + " " + label, type: "button", "aria-label": label + " " + name });
    button.onclick = () => act(name);
    orders.append(button);
  }
  line.append(orders);
  state.lines.set(name, line);
  return line;
}

function fill(line, vm, row) {
  const [, what, memory, ...rest] = line.children;
  what.textContent = vm.state;
  what.title = vm.exit && !isAlive(vm) ? vm.exit.reason : "";
  memory.replaceChildren(memoryBar(row));
  NUMBERS.forEach((key, at) => {
    const value = COLUMNS[key]({ vm, row });
    rest[at].textContent = key === "pressure" ? percent(value) : size(value);
  });
  ORDERS.forEach(({ can }, at) => { line.lastChild.children[at].disabled = !can(vm); });
  return line;
}

function memoryBar(row) {
  const bar = element("div", null, { class: "memory" });
  if (row) {
    for (const { key, label } of STATES) {
      const part = element("i", null, { title: label + ": " + size(row[key]) });
      part.style.width = row[key] / row.limit * 100 + "%";
      part.style.background = `var(--${key})`;
      bar.append(part);
    }
    const mark = element("b", null, { title: "entitled to " + size(row.entitlement) + ": " + row.reason });
    mark.style.left = `calc(${Math.min(1, row.entitlement / row.limit) * 100}% - 2px)`;
    bar.append(mark);
  }
  return bar;
}

function renderDecisions() {
  $("decisions").replaceChildren(...state.decisions.map(one => {
    const line = element("li");
    const what = one.what + (one.direction === "take" ? " −" : one.direction === "return" ? " +" : " ×") + size(one.bytes);
    line.append(element("time", clock(one.time)), element("b", one.vm ?? "host"), element("span", what), element("span", one.reason));
    return line;
  }));
}

function askBalloon(name) {
  const dialog = $("ask");
  $("ask-vm").textContent = name;
  $("size").value = "";
  dialog.returnValue = "";
  dialog.onclose = () => {
    const match = /^([0-9]+) *([KMGT]?)$/.exec($("size").value.trim());
    if (dialog.returnValue !== "order" || !match) return;
    const bytes = match[1] * 1024 ** " KMGT".indexOf(match[2] || " ");
    order(name, "balloon", { target: Math.floor(bytes / 4096) * 4096 });
  };
  dialog.showModal();
}

for (const head of document.querySelectorAll("th[data-key]")) {
  head.onclick = () => {
    const key = head.dataset.key;
    state.sort = [key, state.sort[0] === key ? -state.sort[1] : key === "name" ? 1 : -1];
    document.querySelectorAll("th").forEach(one => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", state.sort[1] > 0 ? "ascending" : "descending");
    render();
  };
}
for (const id of ["stack", "subject", "span"]) $(id).onchange = render;
$("chart").onmousemove = showHint;
$("chart").onmouseleave = () => { $("hint").hidden = true; };
window.onresize = render;
follow();
request("/v1/host").then(report => report && onReport(report)).catch(error => say(error.message));
