// The dashboard's script. State is kept in the address; data come from DATA, or from data.json of a live server.
"use strict";

const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const MANY = 12; // with more arms than this, each setting is preset to a value that all kinds of arms have, if any
const FEW = 6; // up to so many points get labels in the chart
const POLL_MS = 2000;

let data = DATA;
let state = {};
const byId = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const told = (value) => // formatted: integers and large numbers in full, others to six digits
  Number.isInteger(value) || Math.abs(value) >= 1e6 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(6)));
const isLog = (column) => data.logarithmic.includes(column);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const unfinished = (run) => ["running", "interrupted", "failed", "left"].includes(run.status);
const pick = (columns, has) => columns.filter((column) => has.has(column));

// ---- colours: a recipe's own, shifted only as far as contrast with the card needs

function luminance(rgb) {
  const [r, g, b] = rgb.map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
const parsed = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
function readable(hex) {
  const ground = luminance(parsed(style("--card")));
  const towards = ground > 0.5 ? 0 : 255;
  let rgb = parsed(hex);
  const contrast = () => {
    const own = luminance(rgb);
    return (Math.max(own, ground) + 0.05) / (Math.min(own, ground) + 0.05);
  };
  while (contrast() < 3) rgb = rgb.map((v) => v + (towards - v) * 0.06);
  return rgb.map(Math.round);
}
const rgba = (rgb, alpha) => `rgba(${rgb.join(",")},${alpha})`;
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// ---- state, kept in the address so that a reload or a link shows the same

function readState() {
  const asked = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const experiment = data.experiments.find((e) => e.name === asked.experiment) || data.experiments[0];
  if (!experiment) return { experiment: null };
  const has = new Set(experiment.arms.flatMap((arm) => arm.runs.flatMap((run) => Object.keys(run.history))));
  const costs = pick(data.costs, has);
  const metrics = pick(data.metrics, has);
  const preferred = experiment.target && experiment.target.metric;
  const cost = costs.includes(asked.cost) ? asked.cost : costs.includes("uplink_bits") ? "uplink_bits" : costs[0];
  const metric = metrics.includes(asked.metric) ? asked.metric : metrics.includes(preferred) ? preferred : metrics[0];
  const flag = (text, otherwise) => (text === undefined ? otherwise : text === "1");
  return {
    experiment, costs, metrics, cost, metric,
    logX: flag(asked.logX, Boolean(cost) && isLog(cost)),
    logY: flag(asked.logY, Boolean(metric) && isLog(metric)),
    hidden: new Set(asked.hidden ? asked.hidden.split("|") : []),
    settings: settingsOf(experiment, asked),
    skipper: asked.skipper,
    sort: experiment.table?.columns[asked.sort] ? Number(asked.sort) : null,
    descending: asked.descending === "1",
  };
}

function settingsOf(experiment, asked) {
  const values = {};
  for (const arm of experiment.arms)
    for (const [key, value] of Object.entries(arm.settings)) ((values[key] ||= {})[value] ||= new Set()).add(arm.name);
  const names = new Set(experiment.arms.map((arm) => arm.name));
  const found = {};
  for (const [key, having] of Object.entries(values)) {
    const options = Object.keys(having).sort((a, b) => a - b || a.localeCompare(b));
    if (options.length < 2) continue;
    const common = options.find((value) => having[value].size === names.size) ?? "";
    const given = asked[`set.${key}`];
    found[key] = { options, value: given === "" || options.includes(given) ? given : experiment.arms.length > MANY ? common : "" };
  }
  return found;
}

function writeState(changes) {
  Object.assign(state, changes);
  const parts = new URLSearchParams({ experiment: state.experiment.name, metric: state.metric, cost: state.cost });
  parts.set("logX", state.logX ? "1" : "0");
  parts.set("logY", state.logY ? "1" : "0");
  if (state.hidden.size) parts.set("hidden", [...state.hidden].join("|"));
  for (const [key, { value }] of Object.entries(state.settings)) parts.set(`set.${key}`, value);
  if (state.skipper) parts.set("skipper", state.skipper);
  if (state.sort !== null) parts.set("sort", state.sort);
  if (state.descending) parts.set("descending", "1");
  history.replaceState(null, "", `#${parts}`);
  render();
}

// ---- what is shown

const armsPicked = () => state.experiment.arms.filter((arm) =>
  Object.entries(state.settings).every(([key, { value }]) => !value || arm.settings[key] === undefined || arm.settings[key] === value));

function looks(arms) {
  const seen = {};
  return new Map(arms.map((arm) => {
    const order = (seen[arm.color] = (seen[arm.color] ?? -1) + 1);
    return [arm.label, { rgb: readable(arm.color), dash: DASHES[order % DASHES.length] }];
  }));
}

// Mean, lowest and highest value over the given runs, at each evaluation.
function band(runs, cost, metric) {
  const having = runs.filter((run) => run.history[cost] && run.history[metric]);
  const length = Math.min(...having.map((run) => run.history[cost].length));
  const points = [];
  for (let i = 0; having.length && i < length; i++) {
    const x = having.map((run) => run.history[cost][i]);
    const y = having.map((run) => run.history[metric][i]);
    if (x.includes(null) || y.includes(null)) continue;
    points.push({ x: mean(x), y: mean(y), low: Math.min(...y), high: Math.max(...y), n: y.length });
  }
  return points;
}

function traces(arms, look) {
  const { cost, metric } = state;
  const shown = [];
  for (const arm of arms) {
    if (state.hidden.has(arm.label)) continue;
    const { rgb, dash } = look.get(arm.label);
    const points = band(arm.runs.filter((run) => run.status === "complete"), cost, metric);
    const x = points.map((p) => p.x);
    if (points.some((p) => p.n > 1)) {
      shown.push({
        x: [...x, ...x.slice().reverse()],
        y: [...points.map((p) => p.high), ...points.map((p) => p.low).reverse()],
        fill: "toself", fillcolor: rgba(rgb, 0.15), line: { width: 0 }, hoverinfo: "skip", type: "scatter", mode: "lines",
        name: `${arm.label} band`,
      });
    }
    if (points.length) {
      shown.push({
        x, y: points.map((p) => p.y), name: arm.label, customdata: points.map((p) => [told(p.x), told(p.y),
          p.n > 1 ? `<br>from ${told(p.low)} to ${told(p.high)}, n = ${p.n}` : ""]),
        type: "scatter", mode: points.length > 1 ? "lines" : "markers", line: { color: rgba(rgb, 1), dash, width: 2 },
        marker: { color: rgba(rgb, 1) },
        hovertemplate: `<b>${arm.label}</b><br>${data.titles[cost]} %{customdata[0]}<br>` +
          `${data.titles[metric]} %{customdata[1]}%{customdata[2]}<extra></extra>`,
      });
    }
    for (const run of arm.runs.filter(unfinished)) {
      const points = band([run], cost, metric);
      if (!points.length) continue;
      shown.push({
        x: points.map((p) => p.x), y: points.map((p) => p.y), customdata: points.map((p) => [told(p.x), told(p.y)]),
        name: `${arm.label} seed ${run.seed}, ${run.status}`, type: "scatter",
        mode: "lines+markers", line: { color: rgba(rgb, 0.7), width: 1 }, marker: { size: 3 },
        hovertemplate: `<b>${arm.label}</b>, seed ${run.seed}, ${run.status}<br>` +
          `${data.titles[cost]} %{customdata[0]}<br>${data.titles[metric]} %{customdata[1]}<extra></extra>`,
      });
    }
  }
  return shown;
}

function layout(x, y, extra = {}) {
  const axis = { gridcolor: style("--line"), linecolor: style("--line"), zeroline: false, automargin: true,
    exponentformat: "power" };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
    font: { color: style("--text"), family: "system-ui, sans-serif", size: 13 },
    margin: { l: 60, r: 12, t: 10, b: 48 }, dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", ...extra,
    xaxis: { ...axis, ...(x.type !== "log" && { tickformat: "~s" }), nticks: innerWidth < 600 ? 4 : 8, ...x },
    yaxis: { ...axis, ...y },
    hoverlabel: { bgcolor: style("--card"), font: { color: style("--text") } },
  };
}
const PLOTLY = { responsive: true, displaylogo: false, displayModeBar: false };
const scale = (log) => (log ? "log" : "linear");

function drawCurves() {
  const arms = armsPicked();
  const look = looks(arms);
  Plotly.react("curves", traces(arms, look), layout(
    { title: { text: data.titles[state.cost] }, type: scale(state.logX) },
    { title: { text: data.titles[state.metric] }, type: scale(state.logY) },
    { uirevision: [state.experiment.name, state.cost, state.metric, state.logX, state.logY].join() }, // keeps a zoom
  ), PLOTLY);
  byId("curves").setAttribute("aria-label", `${data.titles[state.metric]} against ${data.titles[state.cost]}`);
  const legend = byId("legend");
  const total = state.experiment.arms.length;
  byId("picked").textContent = arms.length < total ? `${arms.length} of ${total} arms` : "";
  const focused = legend.contains(document.activeElement) ? document.activeElement.dataset.label : null;
  legend.replaceChildren(...arms.map((arm) => {
    const { rgb, dash } = look.get(arm.label);
    const swatch = `<svg width="26" height="8" aria-hidden="true"><line x1="0" y1="4" x2="26" y2="4" stroke="${rgba(rgb, 1)}"
      stroke-width="3" stroke-dasharray="${{ solid: "", dash: "6 3", dot: "2 3", dashdot: "6 3 2 3" }[dash] ?? "9 3"}"/></svg>`;
    const button = make("button", { type: "button", innerHTML: swatch });
    const lost = arm.runs.filter((run) => run.status === "diverged").length;
    button.append(lost ? `${arm.label} (${lost} of ${arm.runs.length} diverged)` : arm.label);
    button.dataset.label = arm.label;
    button.setAttribute("aria-pressed", String(!state.hidden.has(arm.label)));
    button.onclick = () => {
      const hidden = new Set(state.hidden);
      if (!hidden.delete(arm.label)) hidden.add(arm.label);
      writeState({ hidden });
    };
    return button;
  }));
  if (focused) [...legend.children].find((b) => b.dataset.label === focused)?.focus();
}

function drawTable() {
  const { table } = state.experiment;
  byId("table-title").textContent = table && table.at === "end" ? "After the last round" : "At the target";
  byId("caption").textContent = table ? table.caption : "No run is complete yet.";
  if (!table) return byId("table").replaceChildren();
  const focused = document.activeElement?.dataset?.column;
  const head = make("tr", {}, ...table.columns.map((column, at) => {
    const button = make("button", { type: "button", textContent: column.title });
    button.dataset.column = at;
    button.onclick = () => writeState({ sort: at, descending: state.sort === at && !state.descending });
    const cell = make("th", { scope: "col", className: column.name ? "name" : "" }, button);
    if (state.sort === at) {
      cell.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
      button.append(state.descending ? " ↓" : " ↑");
    }
    return cell;
  }));
  const rows = [...table.rows];
  if (state.sort !== null) {
    const at = state.sort;
    rows.sort((a, b) => {
      const [p, q] = [a[at][1], b[at][1]];
      if (p === null || q === null) return (p === null) - (q === null); // missing values come last
      const order = typeof p === "string" ? p.localeCompare(q) : p - q;
      return state.descending ? -order : order;
    });
  }
  const body = rows.map((row) => make("tr", {}, ...row.map(([text], at) =>
    make(at ? "td" : "th", { textContent: text, className: table.columns[at].name ? "name" : "", ...(!at && { scope: "row" }) }))));
  byId("table").replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
  if (focused !== undefined) byId("table").querySelectorAll("th button")[focused]?.focus();
}

function drawTradeOff() {
  const arms = armsPicked();
  const look = looks(arms);
  const metric = state.experiment.target ? state.experiment.target.metric : state.metric;
  const missed = [];
  const shown = [];
  for (const arm of arms) {
    const complete = arm.runs.filter((run) => run.status === "complete");
    const reached = complete.filter((run) => run.target_round !== null);
    const bits = reached.map((run) => run.history.total_bits?.[run.history.round.indexOf(run.target_round)]).filter((b) => b);
    const ends = complete.map((run) => run.history[metric]?.at(-1)).filter((v) => v !== undefined && v !== null);
    const ended = arm.runs.filter((run) => !unfinished(run)).length; // a diverged run counts as a miss
    if (reached.length < ended) missed.push(`${arm.label} (${ended - reached.length} of ${ended})`);
    if (state.hidden.has(arm.label) || !bits.length || !ends.length) continue;
    const { rgb } = look.get(arm.label);
    const [x, y] = [mean(bits), mean(ends)];
    shown.push({
      x: [x], y: [y], name: arm.label, type: "scatter", mode: arms.length > FEW ? "markers" : "markers+text",
      text: [arm.label], textposition: "top right", cliponaxis: false,
      marker: { color: rgba(rgb, 1), size: 11 },
      error_x: { type: "data", symmetric: false, array: [Math.max(...bits) - x], arrayminus: [x - Math.min(...bits)], thickness: 1 },
      error_y: { type: "data", symmetric: false, array: [Math.max(...ends) - y], arrayminus: [y - Math.min(...ends)], thickness: 1 },
      hovertemplate: `<b>${arm.label}</b><br>${told(x)} bits both ways to the target<br>${told(y)} at the end<extra></extra>`,
    });
  }
  byId("trade").hidden = !shown.length;
  if (shown.length) Plotly.react("trade", shown, layout(
    { title: { text: "bits both ways to the target" }, type: "log" },
    { title: { text: `${data.titles[metric]} at the end` } },
    { margin: { l: 60, r: 90, t: 24, b: 48 } }, // room for labels
  ), PLOTLY);
  byId("trade").setAttribute("aria-label", `${data.titles[metric]} at the end against bits both ways to the target`);
  byId("missed").textContent = missed.length > FEW ? `${missed.length} of ${arms.length} arms have seeds that missed the target.`
    : missed.length ? `Missed the target: ${missed.join(", ")}.` : shown.length ? "" : "No arm shown has reached the target.";
}

// The share of rounds that each worker skipped between two evaluations, mean over seeds.
function skipsOf(arm) {
  const having = arm.runs.filter((run) => run.history.skips && !run.history.skips.includes(null));
  const complete = having.filter((run) => run.status === "complete");
  const runs = complete.length ? complete : having;
  if (!runs.length) return null;
  const length = Math.min(...runs.map((run) => run.history.skips.length));
  const rounds = runs[0].history.round.slice(0, length);
  const workers = runs[0].history.skips[0].length;
  const share = (run, worker, at) => {
    const [now, before] = [run.history.skips[at][worker], at ? run.history.skips[at - 1][worker] : 0];
    return (now - before) / (rounds[at] - (at ? rounds[at - 1] : 0));
  };
  const z = Array.from({ length: workers }, (_, worker) => rounds.map((_, at) => mean(runs.map((run) => share(run, worker, at)))));
  return { rounds, z, any: z.some((row) => row.some((v) => v > 0)) };
}

function drawSkips() {
  const found = armsPicked().map((arm) => [arm.label, skipsOf(arm)]).filter(([, skips]) => skips);
  const lazy = found.filter(([, skips]) => skips.any);
  const options = lazy.length ? lazy : found;
  const labels = options.map(([label]) => label);
  const label = labels.includes(state.skipper) ? state.skipper : labels.includes("sasg") ? "sasg" : labels[0];
  fill(byId("skipper"), labels, label);
  byId("skips").hidden = byId("skipper").parentElement.hidden = !lazy.length;
  byId("no-skips").textContent = lazy.length ? "The share of rounds that a worker skipped since the last evaluation, mean over seeds."
    : found.length ? "No worker skipped a round." : "Not recorded in these runs.";
  if (!lazy.length) return;
  byId("skips").setAttribute("aria-label", `share of rounds skipped by each worker of ${label}`);
  const { rounds, z } = options.find(([name]) => name === label)[1];
  Plotly.react("skips", [{
    type: "heatmap", x: rounds, y: z.map((_, rank) => rank), z, colorscale: "Cividis", zmin: 0, zmax: 1,
    colorbar: { title: { text: "skipped", side: "right" }, thickness: 12 },
    hovertemplate: "worker %{y}, up to round %{x}: %{z:.0%} skipped<extra></extra>",
  }], layout({ title: { text: "rounds" } }, { title: { text: "worker" }, dtick: z.length > 16 ? 5 : 1 }), PLOTLY);
}

function drawRuns() {
  const { metric } = state;
  const titles = ["run", "seed", "state", "rounds", data.titles[metric] ?? "", "files"];
  const head = make("tr", {}, ...titles.map((textContent, at) => make("th", { scope: "col", textContent, className: at ? "" : "name" })));
  const rows = state.experiment.arms.flatMap((arm) => arm.runs.map((run) => {
    const link = (file) => make("a", { href: `${run.path.split("/").map(encodeURIComponent).join("/")}/${file}`, textContent: file });
    const last = (column) => run.history[column]?.at(-1) ?? "";
    const shown = (value) => (value === "" || value === null ? "" : told(value));
    const when = new Date(1000 * run.written).toLocaleString();
    const heard = run.status === "interrupted" ? `last heard of ${when}` : run.told;
    const cells = [arm.label, run.seed, unfinished(run) && heard ? `${run.status}: ${heard}` : run.status,
      shown(last("round")), shown(last(metric))];
    return make("tr", {}, ...cells.map((text, at) => make("td", { textContent: text, className: at ? "" : "name", title: at === 2 ? run.told : "" })),
      make("td", {}, link("config.yaml"), " ", ...(run.history.round ? [link("history.csv")] : [])));
  }));
  byId("runs").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
}

function fill(select, options, value, titles = {}) {
  const wanted = options.map((option) => make("option", { value: option, textContent: titles[option] ?? option }));
  const same = wanted.length === select.options.length && wanted.every((o, at) => o.value === select.options[at].value);
  if (!same) select.replaceChildren(...wanted);
  select.value = value;
}

function drawControls() {
  fill(byId("experiment"), data.experiments.map((e) => e.name), state.experiment.name);
  fill(byId("metric"), state.metrics, state.metric, data.titles);
  fill(byId("cost"), state.costs, state.cost, data.titles);
  byId("log-x").checked = state.logX;
  byId("log-y").checked = state.logY;
  const box = byId("settings");
  const offered = JSON.stringify([state.experiment.name, Object.entries(state.settings).map(([key, { options }]) => [key, options])]);
  if (box.dataset.offered !== offered) {
    box.dataset.offered = offered;
    box.replaceChildren(...Object.entries(state.settings).map(([key, { options }]) => {
      const select = make("select", {}, make("option", { value: "", textContent: "all" }),
        ...options.map((value) => make("option", { value, textContent: value })));
      select.dataset.setting = key;
      select.onchange = () => writeState({ settings: { ...state.settings, [key]: { options, value: select.value } } });
      return make("label", {}, `${key} `, select, " ");
    }));
  }
  for (const select of box.querySelectorAll("select")) select.value = state.settings[select.dataset.setting].value;
  const runs = state.experiment.arms.flatMap((arm) => arm.runs);
  const count = (status) => runs.filter((run) => run.status === status).length;
  const parts = [`${count("complete")} runs complete`];
  for (const status of ["running", "interrupted", "failed", "left", "diverged"]) if (count(status)) parts.push(`${count(status)} ${status}`);
  byId("status").textContent = parts.join(", ");
}

function render() {
  const problems = byId("problems");
  problems.hidden = !data.problems.length;
  problems.textContent = data.problems.join("\n");
  document.querySelector("main").hidden = !state.experiment;
  if (!state.experiment) {
    byId("status").textContent = "No runs yet.";
    return;
  }
  document.title = `bitbudget: ${state.experiment.name}`;
  applyNetwork();
  drawControls();
  byId("nothing").hidden = Boolean(state.cost && state.metric);
  byId("curves").hidden = byId("legend").hidden = !byId("nothing").hidden;
  if (!byId("curves").hidden) drawCurves();
  drawTable();
  drawTradeOff();
  drawSkips();
  drawNetwork();
  drawPrices();
  drawRuns();
}

// ---- wiring

byId("experiment").onchange = (event) => {
  location.hash = new URLSearchParams({ experiment: event.target.value });
};
byId("metric").onchange = (event) => writeState({ metric: event.target.value, logY: isLog(event.target.value) });
byId("cost").onchange = (event) => writeState({ cost: event.target.value, logX: isLog(event.target.value) });
byId("log-x").onchange = (event) => writeState({ logX: event.target.checked });
byId("log-y").onchange = (event) => writeState({ logY: event.target.checked });
byId("skipper").onchange = (event) => writeState({ skipper: event.target.value });
for (const name of [...Object.keys(SLIDERS), "link"]) byId(`net-${name}`).oninput = () => render();
byId("priced").onchange = () => drawPrices();
addEventListener("hashchange", () => { state = readState(); render(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);

async function ask(tag) {
  const answer = await fetch("data.json", { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
  if (answer.status === 304) return null;
  if (!answer.ok) throw new Error(answer.statusText);
  return { tag: answer.headers.get("ETag"), data: await answer.json() };
}

async function follow() {
  for (let tag = null; ; await new Promise((resolve) => setTimeout(resolve, POLL_MS))) {
    let said;
    try {
      said = await ask(tag);
    } catch {
      tag = null; // ask for all data again
      byId("status").textContent = "The server does not answer; its last data are shown.";
      continue;
    }
    if (!said) continue;
    ({ tag, data } = said);
    state = readState();
    render();
  }
}

if (data) {
  state = readState();
  render();
} else {
  follow();
}
