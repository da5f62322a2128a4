// What all charts share: axes, lines over seeds, zoom, downloads, and their data as a table.

const CONFIG = { responsive: true, displaylogo: false, displayModeBar: false };
const charted = {}; // by the id of a chart: its data, as { head, rows }

function layout(x, y, extra = {}) {
  const axis = { gridcolor: style("--line"), linecolor: style("--line"), zeroline: false, automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
    font: { color: style("--text"), family: "system-ui, sans-serif", size: 13 },
    margin: { l: 60, r: 12, t: 10, b: 48 }, dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", ...extra,
    xaxis: { ...axis, nticks: innerWidth < 600 ? 4 : 8, ...x }, yaxis: { ...axis, ...y, title: { ...y.title, standoff: 8 } },
    hoverlabel: { bgcolor: style("--card"), font: { color: style("--text") } },
  };
}

// Draw a chart, and keep its data for downloads and for readers of tables. `words`: by column of these data, what writes
// a number with its unit; in downloads, numbers are plain.
function draw(id, title, traces, shown, head, rows, words = []) {
  charted[id] = { title, head, rows, words };
  const [xaxis, yaxis] = [shown.xaxis, shown.yaxis].map((axis, at) => ({ ...axis, ...zoomed(id, at) }));
  Plotly.react(id, traces, { ...shown, xaxis: ticked(id, xaxis, traces), yaxis }, CONFIG);
  followZoom(id);
  if (byId(id)._fullLayout.width !== byId(id).clientWidth) Plotly.Plots.resize(id);
  byId(id).setAttribute("aria-label", `${title}; its data are in the table below it`);
  const tools = byId(id).nextElementSibling?.classList.contains("tools") ? byId(id).nextElementSibling : addTools(id);
  tools.querySelector(".whole").hidden = !state.zooms[id];
  if (tools.querySelector("details").open) fillData(id, tools.querySelector("details"));
}

// A logarithmic axis with as many ticks as have room: of each power of ten, or of 2 and 5 times it, too.
function ticked(id, axis, traces) {
  if (axis.type !== "log" || axis.tickvals || axis.dtick) return axis;
  const values = traces.flatMap(({ x }) => x).filter((value) => value > 0);
  const decades = axis.range ? axis.range[1] - axis.range[0] : Math.log10(Math.max(...values) / Math.min(...values));
  const room = byId(id).clientWidth > 700 ? 4 : 1; // decades with three ticks each
  if (decades < 1) return axis;
  return { ...axis, dtick: decades > room ? Math.ceil(decades / (2 * room + 2)) : "D2" };
}

function addTools(id) {
  const button = (text, onclick) => make("button", { type: "button", textContent: text, onclick });
  const image = (format) => Plotly.downloadImage(id, { format, filename: fileName(id), width: 1200, height: 700, scale: format === "png" ? 2 : 1 });
  const details = make("details", {}, make("summary", { textContent: "Data" }), make("div", { className: "scroll data" }));
  details.querySelector("div").tabIndex = 0;
  details.ontoggle = () => details.open && fillData(id, details);
  const whole = Object.assign(button("whole range", () => writeState({ zooms: without(id) })), { className: "whole" });
  const tools = make("div", { className: "tools" }, "Download ", button("PNG", () => image("png")), button("SVG", () => image("svg")),
    button("CSV", () => save(`${fileName(id)}.csv`, csvOf(charted[id]))), whole, details);
  byId(id).after(tools);
  return tools;
}

const fileName = (id) => `${state.experiment?.name ?? "bitbudget"}-${id}`;
const csvOf = ({ head, rows }) => [head, ...rows].map((row) => row.map((cell) => (/[",\n]/.test(cell ?? "") ? `"${String(cell).replaceAll('"', '""')}"` : cell ?? "")).join(",")).join("\n") + "\n";

function fillData(id, details) {
  const { title, head, rows, words } = charted[id];
  const text = (cell, at) => (typeof cell === "number" ? (words[at] ?? told)(cell) : cell ?? "");
  const line = (cells, tag) => make("tr", {}, ...cells.map((cell, at) => make(tag, { textContent: text(cell, at), className: at ? "" : "name" })));
  details.querySelector("div").replaceChildren(make("table", {}, make("caption", { textContent: title }), make("thead", {}, line(head, "th")), make("tbody", {}, ...rows.map((row) => line(row, "td")))));
}

function save(name, text) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/plain" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
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

// The lines of entries ({ name, look, runs }): means and bands of complete runs, and unfinished runs one by one.
function curves(entries, cost, metric, seeds = false) {
  const shown = [];
  const hover = (who, points) => ({
    customdata: points.map((p) => [amountInFull(cost, p.x), amountInFull(metric, p.y),
      p.n > 1 ? `<br>from ${amount(metric, p.low)} to ${amount(metric, p.high)}, n = ${p.n}` : ""]),
    hovertemplate: `<b>${who}</b><br>${data.titles[cost]} %{customdata[0]}<br>${data.titles[metric]} %{customdata[1]}%{customdata[2]}<extra></extra>`,
  });
  for (const { name, look, runs } of entries) {
    const complete = runs.filter((run) => run.status === "complete");
    const points = band(complete, cost, metric);
    const x = points.map((p) => p.x);
    if (points.some((p) => p.n > 1)) {
      shown.push({
        x: [...x, ...x.slice().reverse()], y: [...points.map((p) => p.high), ...points.map((p) => p.low).reverse()],
        fill: "toself", fillcolor: rgba(look.color, 0.15), line: { width: 0 }, hoverinfo: "skip", type: "scatter", mode: "lines", name: `${name} band`,
      });
    }
    const single = [...(seeds && complete.length > 1 ? complete : []), ...runs.filter(unfinished)];
    for (const run of single) {
      const own = band([run], cost, metric);
      const who = `${name} seed ${run.seed}${unfinished(run) ? `, ${run.status}` : ""}`;
      if (own.length) shown.push({ x: own.map((p) => p.x), y: own.map((p) => p.y), name: who, type: "scatter", opacity: 0.7, ...lineOf(look, 1), ...(unfinished(run) && own.length === 1 && { mode: "markers" }), ...hover(who, own) });
    }
    if (points.length) {
      shown.push({ x, y: points.map((p) => p.y), name, type: "scatter", ...lineOf(look), ...(points.length === 1 && { mode: "markers", marker: { color: look.color, symbol: look.point, size: 9 } }), ...hover(name, points) });
    }
  }
  return shown;
}

// What curves show, as a table.
function curvesData(entries, cost, metric) {
  const rows = entries.flatMap(({ name, runs }) => {
    const complete = runs.filter((run) => run.status === "complete");
    return band(complete.length ? complete : runs, cost, metric).map((p) => [name, p.x, p.y, p.low, p.high, p.n]);
  });
  const [across, up] = [inWords(cost), inWords(metric)];
  return [["line", data.titles[cost], data.titles[metric], "lowest seed", "highest seed", "n"], rows, [, across, up, up, up]];
}

// A line at the target, and room for it.
function atTarget(target, metric, log) {
  if (!target || target.metric !== metric) return [{}, {}];
  const label = { text: `target ${amount(metric, target.value)}`, x: 0, xref: "paper", xanchor: "left", yanchor: "bottom", showarrow: false, font: { size: 11, color: style("--quiet") } };
  return [
    { shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: target.value, y1: target.value, line: { color: style("--quiet"), width: 1, dash: "dot" } }],
      annotations: [{ ...label, y: log ? Math.log10(target.value) : target.value }] },
    { autorangeoptions: { include: log ? Math.log10(target.value) : target.value } },
  ];
}

// An axis at the zoom that the address holds, or over all that is drawn.
function zoomed(id, at) {
  const ends = state.zooms[id];
  return ends ? { range: ends.slice(2 * at, 2 * at + 2), autorange: false } : { autorange: true };
}

// Keep a chart's zoom in the address.
function followZoom(id) {
  const chart = byId(id);
  if (chart.dataset.followed) return;
  chart.dataset.followed = "1";
  chart.on("plotly_relayout", (change) => {
    const keys = Object.keys(change);
    if (keys.some((key) => key.endsWith(".autorange"))) return state.zooms[id] && writeState({ zooms: without(id) });
    if (!keys.some((key) => key.includes(".range"))) return undefined;
    const { xaxis, yaxis } = chart.layout;
    return writeState({ zooms: { ...state.zooms, [id]: [...xaxis.range, ...yaxis.range] } });
  });
}
const without = (...ids) => Object.fromEntries(Object.entries(state.zooms).filter(([id]) => !ids.includes(id)));

// Whether positive values span two decades.
function spansDecades(values) {
  const positive = values.filter((value) => value > 0);
  return positive.length === values.length && Math.max(...positive) >= 100 * Math.min(...positive);
}

const spread = (values) => { // the sample standard deviation
  const middle = mean(values);
  return values.length > 1 ? Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1)) : 0;
};
