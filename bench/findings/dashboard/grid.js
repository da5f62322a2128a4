// The grid of a tuned experiment: the final metric against the tuned setting, the best of each line marked.

function drawGrid() {
  const { tuned, arms } = state.experiment;
  byId("grid-title").closest("section").hidden = !tuned;
  if (!tuned) return;
  const { setting, metric } = tuned;
  const shown = arms.filter((arm) => setting in arm.settings && passes(arm, state.settings, setting));
  const bare = shown.map((arm) => {
    const settings = Object.fromEntries(Object.entries(arm.settings).filter(([key]) => key !== setting));
    return { ...arm, settings, label: JSON.stringify([arm.name, settings]), at: valueOf(arm.settings[setting]), given: arm.settings[setting] };
  });
  const names = namesOf(bare);
  const groups = [...new Map(bare.map((arm) => [arm.label, arm])).values()];
  const look = looks(groups.map(({ label, recipe }) => ({ key: label, recipe })));
  const points = bare.map((arm) => {
    const ended = arm.runs.filter((run) => run.status === "complete" && run.history[metric]);
    const lost = arm.runs.filter((run) => run.status === "diverged").length;
    return { ...arm, lost, values: ended.map((run) => run.history[metric].at(-1)) };
  });
  const sound = points.filter((p) => p.values.length).map((p) => mean(p.values));
  const floor = data.falling.includes(metric) ? Math.max(...sound) : Math.min(...sound); // where diverged runs are told
  const log = isLog(metric) || (sound.length > 0 && spansDecades(sound));
  const traces = groups.flatMap(({ label, name }) => {
    const line = points.filter((p) => p.label === label).sort((a, b) => a.at - b.at);
    const ran = line.filter((p) => p.values.length);
    const best = ran.filter((p) => p.best);
    const lost = line.filter((p) => p.lost);
    const told = (p) => `<b>${names.get(label)}</b><br>${setting} ${p.given}<br>${p.values.length ? amount(metric, mean(p.values)) : ""}`
      + `${p.lost ? ` ${p.lost} of ${p.runs.length} diverged` : ""}${p.best ? "<br>the best" : ""}<extra></extra>`;
    const common = { type: "scatter", hovertemplate: line.map(told) };
    const drawn = lineOf(look.get(label));
    return [
      { ...common, ...drawn, name: names.get(label), mode: "lines+markers", marker: { ...drawn.marker, size: 6, symbol: drawn.marker.symbol ?? "circle" }, x: ran.map((p) => p.at), y: ran.map((p) => mean(p.values)), hovertemplate: ran.map(told) },
      { ...common, name: `${names.get(label)}: best`, mode: "markers", x: best.map((p) => p.at), y: best.map((p) => mean(p.values)), hovertemplate: best.map(told),
        marker: { color: look.get(label).color, symbol: "star", size: 16, line: { color: style("--text"), width: 1 } } },
      { ...common, name: `${names.get(label)}: diverged`, mode: "markers", x: lost.map((p) => p.at), y: lost.map(() => floor), hovertemplate: lost.map(told),
        marker: { color: look.get(label).color, symbol: "x-thin", size: 9, line: { color: look.get(label).color, width: 2 } } },
    ].filter((trace) => trace.x.length);
  });
  const values = [...new Map(bare.map((p) => [p.at, p.given]))].sort(([a], [b]) => a - b);
  draw("grid", `final ${data.titles[metric]} against ${setting}`, traces, layout(
    { title: { text: setting }, type: "log", tickvals: values.map(([at]) => at), ticktext: values.map(([, given]) => given), tickangle: innerWidth < 600 ? -60 : 0 },
    axisOf(metric, log, `${data.titles[metric]} at the end`),
  ), ["line", setting, `final ${data.titles[metric]}`, "diverged seeds", "best"],
  points.map((p) => [names.get(p.label), p.given, p.values.length ? mean(p.values) : "", p.lost, p.best ? "yes" : ""]),
  [, , inWords(metric)]);
  const legend = groups.map(({ label }) => make("span", { innerHTML: swatch(look.get(label)) }, ` ${names.get(label)}`));
  byId("grid-legend").replaceChildren(...legend);
  byId("grid-told").textContent = `A star marks the best ${setting} of each line${points.some((p) => p.lost) ? "; a cross, that a seed diverged" : ""}.`;
}
