// What is on the page, and what its controls do. Data come from DATA, or from a live server (live.js).

let data = DATA;

function drawControls() {
  fill(byId("metric"), state.metrics, state.metric, data.titles);
  fill(byId("cost"), state.costs, state.cost, data.titles);
  byId("log-x").checked = state.logX;
  byId("log-y").checked = state.logY;
  byId("seeds").checked = state.seeds;
  byId("sentence").textContent = data.experiments.find(({ name }) => name === state.experiment.name)?.about?.sentence ?? "";
  const box = byId("settings");
  const tuned = state.experiment.tuned?.setting;
  const offered = JSON.stringify([state.experiment.name, Object.entries(state.settings).map(([key, { options }]) => [key, options])]);
  if (box.dataset.offered !== offered) {
    box.dataset.offered = offered;
    box.replaceChildren(...Object.entries(state.settings).map(([key, { options }]) => {
      const select = make("select", {}, ...(key === tuned ? [make("option", { value: BEST, textContent: "the best" })] : []),
        make("option", { value: "", textContent: "all" }), ...options.map((value) => make("option", { value, textContent: value })));
      select.dataset.setting = key;
      select.onchange = () => writeState({ settings: { ...state.settings, [key]: { options, value: select.value } }, zooms: {} });
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
  const { experiment } = state;
  fill(byId("experiment"), ["", ...data.experiments.map((e) => e.name)], experiment?.name ?? state.awaited ?? "", { "": "all of them" });
  byId("overview").hidden = Boolean(experiment || state.awaited) || !data.experiments.length;
  byId("shown").hidden = !experiment;
  if (state.awaited) byId("status").textContent = `Reading ${state.awaited} …`;
  else if (!data.experiments.length) byId("status").textContent = "No runs yet.";
  else if (experiment) drawExperiment();
  else drawOverview();
  document.title = `bitbudget: ${experiment?.name ?? "experiments"}`;
}

function drawExperiment() {
  applyNetwork();
  drawControls();
  const some = Boolean(state.cost && state.metric);
  byId("nothing").hidden = some;
  byId("curves").parentElement.querySelectorAll(".chart, .tools, #legend").forEach((part) => { part.hidden = !some; });
  if (some) drawCurves();
  drawGrid();
  drawTable();
  drawFurther();
  drawSkips(); // which leaves more or less room for the trade-off
  drawTradeOff();
  drawNetwork();
  drawPrices();
  drawRuns();
}

// ---- wiring

byId("experiment").onchange = (event) => {
  location.hash = event.target.value ? linkTo(event.target.value).slice(1) : "";
};
byId("metric").onchange = (event) => writeState({ metric: event.target.value, logY: startsLog(state.experiment, event.target.value), zooms: without("curves", "trade") });
byId("cost").onchange = (event) => writeState({ cost: event.target.value, logX: startsLog(state.experiment, event.target.value), zooms: without("curves") });
byId("log-x").onchange = (event) => writeState({ logX: event.target.checked, zooms: without("curves") });
byId("log-y").onchange = (event) => writeState({ logY: event.target.checked, zooms: without("curves") });
byId("seeds").onchange = (event) => writeState({ seeds: event.target.checked });
byId("wide").onchange = (event) => writeState({ wide: event.target.checked });
byId("skipper").onchange = (event) => writeState({ skipper: event.target.value });
byId("runs-like").oninput = (event) => writeState({ runsLike: event.target.value });
byId("like").oninput = (event) => writeState({ like: event.target.value });
byId("problem").onchange = (event) => writeState({ problem: event.target.value, recipe: "", aim: "", zooms: {} });
for (const key of ["recipe", "aim", "against"]) byId(key).onchange = (event) => writeState({ [key]: event.target.value, zooms: {} });
for (const key of NETWORK) byId(`net-${key}`).oninput = (event) => writeState({ network: { ...state.network, [key]: event.target.value } });
byId("priced").onchange = (event) => writeState({ priced: event.target.value });
addEventListener("hashchange", () => { state = readState(); render(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);

if (data) {
  state = readState();
  render();
} else {
  follow();
}
