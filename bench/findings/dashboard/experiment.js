// The charts of an experiment: curves, trade-off, skips.

const FEW = 6; // up to so many points get labels in the chart

function entriesOf(arms) {
  const names = namesOf(arms);
  const look = looks(arms.map(({ label, recipe }) => ({ key: label, recipe })));
  return arms.map((arm) => ({ ...arm, name: names.get(arm.label), look: look.get(arm.label) }));
}
const visible = (entries) => entries.filter(({ label }) => !state.hidden.has(label));

function drawCurves() {
  const { cost, metric, logX, logY, experiment } = state;
  const entries = entriesOf(armsPicked());
  const [marks, room] = atTarget(experiment.target, metric, logY);
  draw("curves", `${data.titles[metric]} against ${data.titles[cost]}`, curves(visible(entries), cost, metric, state.seeds), layout(
    axisOf(cost, logX), { ...axisOf(metric, logY), ...room }, marks,
  ), ...curvesData(visible(entries), cost, metric));
  const seeds = experiment.arms.some((arm) => arm.runs.filter((run) => run.status === "complete").length > 1);
  byId("seeds").parentElement.hidden = !seeds;
  byId("band-told").hidden = !seeds;
  const total = experiment.arms.length;
  byId("picked").textContent = entries.length < total ? `${entries.length} of ${total} arms` : "";
  drawLegend(entries);
}

function drawLegend(entries) {
  const legend = byId("legend");
  const focused = legend.contains(document.activeElement) ? document.activeElement.dataset.label : null;
  const labels = entries.map(({ label }) => label);
  legend.replaceChildren(...entries.map(({ label, name, look, runs }) => {
    const button = make("button", { type: "button", innerHTML: swatch(look), title: "a click hides or shows it; a double click, or one with Shift, shows it alone" });
    const lost = runs.filter((run) => run.status === "diverged").length;
    button.append(lost ? `${name} (${lost} of ${runs.length} diverged)` : name);
    button.dataset.label = label;
    button.setAttribute("aria-pressed", String(!state.hidden.has(label)));
    const alone = () => {
      const others = labels.filter((other) => other !== label);
      writeState({ hidden: new Set(others.every((other) => state.hidden.has(other)) && !state.hidden.has(label) ? [] : others) });
    };
    button.onclick = (event) => {
      if (event.shiftKey || event.detail === 2) return alone();
      const hidden = new Set(state.hidden);
      if (!hidden.delete(label)) hidden.add(label);
      return writeState({ hidden });
    };
    return button;
  }));
  if (state.hidden.size) legend.append(make("button", { type: "button", textContent: "show all", onclick: () => writeState({ hidden: new Set() }) }));
  if (focused) [...legend.children].find((b) => b.dataset.label === focused)?.focus();
}

function drawTradeOff() {
  const { experiment } = state;
  const entries = entriesOf(armsPicked());
  const metric = experiment.target ? experiment.target.metric : state.metric;
  const [missed, points] = [[], []];
  for (const { label, name, look, runs } of entries) {
    const complete = runs.filter((run) => run.status === "complete");
    const reached = complete.filter((run) => run.target_round !== null);
    const bits = reached.map((run) => run.history.total_bits?.[run.history.round.indexOf(run.target_round)]).filter((b) => b);
    const ends = complete.map((run) => run.history[metric]?.at(-1)).filter((v) => v !== undefined && v !== null);
    const ended = runs.filter((run) => !unfinished(run)).length; // a diverged run counts as a miss
    if (reached.length < ended) missed.push(`${name} (${ended - reached.length} of ${ended})`);
    if (!state.hidden.has(label) && bits.length && ends.length)
      points.push({ name, look, x: mean(bits), y: mean(ends), sx: spread(bits), sy: spread(ends), n: bits.length });
  }
  const better = data.falling.includes(metric) ? (a, b) => a.y < b.y : (a, b) => a.y > b.y;
  const front = points.filter((p) => !points.some((q) => q !== p && q.x <= p.x && better(q, p))).sort((a, b) => a.x - b.x);
  const few = points.length <= FEW;
  const [left, right] = [Math.min, Math.max].map((most) => most(...points.map((p) => Math.log(p.x))));
  const aside = (p) => ["right", "center", "left"][Math.min(2, Math.floor((3 * (Math.log(p.x) - left)) / (right - left || 1)))]; // names stay inside
  const traces = points.map((p) => ({
    x: [p.x], y: [p.y], name: p.name, type: "scatter", mode: few ? "markers+text" : "markers", text: [p.name], textposition: `top ${aside(p)}`, cliponaxis: false,
    marker: { color: p.look.color, symbol: p.look.point, size: 11 },
    error_x: { type: "data", array: [p.sx], thickness: 1 }, error_y: { type: "data", array: [p.sy], thickness: 1 },
    hovertemplate: `<b>${p.name}</b><br>${prefixed(p.x, "bit")} ± ${prefixed(p.sx, "bit")} (${prefixed(p.x / 8, "B")}) both ways to the target<br>`
      + `${amount(metric, p.y)} ± ${amount(metric, p.sy)} at the end, n = ${p.n}<extra></extra>`,
  }));
  if (front.length > 1) traces.unshift({
    x: front.map((p) => p.x), y: front.map((p) => p.y), name: "Pareto front", type: "scatter", mode: "lines", hoverinfo: "skip",
    line: { color: style("--quiet"), width: 1, dash: "dot" },
  });
  byId("trade").hidden = !points.length;
  const tools = byId("trade").nextElementSibling;
  if (tools.classList.contains("tools")) tools.hidden = !points.length;
  if (points.length) draw("trade", `final ${data.titles[metric]} against bits both ways to the target`, traces, layout(
    { ...axisOf("total_bits", true, "bits both ways to the target"), nticks: 4 }, axisOf(metric, isLog(metric), `${data.titles[metric]} at the end`),
    { margin: { l: 60, r: 40, t: 24, b: 48 } },
  ), ["arm", "bits both ways to the target", "sd", `final ${data.titles[metric]}`, "sd", "seeds that reached it", "on the front"],
  points.map((p) => [p.name, p.x, p.sx, p.y, p.sy, p.n, front.includes(p) ? "yes" : ""]),
  [, inWords("total_bits"), inWords("total_bits"), inWords(metric), inWords(metric)]);
  const told = points.length ? [`Error bars: ± standard deviation over the seeds that reached the target${front.length > 1 ? "; dotted: the Pareto front, which no other beats in both" : ""}.`] : ["No arm shown has reached the target."];
  if (missed.length > FEW) told.push(`${missed.length} of ${entries.length} arms have seeds that missed the target.`);
  else if (missed.length) told.push(`Missed the target: ${missed.join(", ")}.`);
  byId("missed").textContent = told.join(" ");
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
  const names = namesOf(armsPicked());
  const lazy = armsPicked().map((arm) => [arm.label, skipsOf(arm)]).filter(([, skips]) => skips?.any);
  byId("skips-title").closest("section").hidden = !lazy.length;
  byId("trade-title").closest("section").classList.toggle("half", lazy.length > 0);
  if (!lazy.length) return;
  const labels = lazy.map(([label]) => label);
  const label = labels.includes(state.skipper) ? state.skipper : labels.includes("sasg") ? "sasg" : labels[0];
  fill(byId("skipper"), labels, label, Object.fromEntries(names));
  const { rounds, z } = lazy.find(([name]) => name === label)[1];
  draw("skips", `share of rounds skipped by each worker of ${names.get(label)}`, [{
    type: "heatmap", x: rounds, y: z.map((_, rank) => rank), z, colorscale: "Cividis", zmin: 0, zmax: 1,
    colorbar: { title: { text: "skipped", side: "right" }, thickness: 12, tickformat: ".0%" },
    hovertemplate: "worker %{y}, up to round %{x}: %{z:.0%} skipped<extra></extra>",
  }], layout(axisOf("round", false), { title: { text: "worker" }, dtick: z.length > 16 ? 5 : 1 }),
  ["up to round", ...z.map((_, rank) => `worker ${rank}`)], rounds.map((round, at) => [round, ...z.map((row) => row[at])]),
  [, ...z.map(() => (share) => `${rounded(100 * share, 3)} %`)]);
}
