// The state of the page, kept in the address, so that a reload or a link shows the same.

const MANY = 8; // with more arms than this, each setting is preset to a value that all kinds of arms have, if any
const BEST = "best"; // the choice of a tuned setting: for each problem and recipe, the value that ended best

let state = {};
const CHARTS = ["curves", "grid", "trade", "skips", "map", "leaders"]; // each with its own zoom
const NETWORK = ["link", "bandwidth", "latency", "step", "overlap", "workers"]; // the controls of the network
const flag = (text, otherwise) => (text === undefined ? otherwise : text === "1");
const listed = (text) => new Set(text ? text.split("|") : []);

function readState() {
  const asked = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const known = data.experiments.some(({ name }) => name === asked.experiment);
  if (!asked.experiment || !known) return { experiment: null, unknown: asked.experiment, zooms: zoomsOf(asked), ...overviewState(asked) };
  const experiment = data.loaded[asked.experiment];
  if (!experiment) return { experiment: null, awaited: asked.experiment, zooms: {} };
  const has = new Set(experiment.arms.flatMap((arm) => arm.runs.flatMap((run) => Object.keys(run.history))));
  const costs = data.costs.filter((column) => has.has(column));
  const metrics = data.metrics.filter((column) => has.has(column));
  const preferred = experiment.target && experiment.target.metric;
  const usual = [!experiment.figure.length || experiment.figure.some(isBits) ? "uplink_bits" : experiment.figure[0], "uplink_bits", ...costs];
  const cost = costs.includes(asked.cost) ? asked.cost : usual.find((column) => costs.includes(column));
  const metric = metrics.includes(asked.metric) ? asked.metric : metrics.includes(preferred) ? preferred : metrics[0];
  return {
    experiment, costs, metrics, cost, metric,
    logX: flag(asked.logX, startsLog(experiment, cost)), logY: flag(asked.logY, startsLog(experiment, metric)),
    seeds: flag(asked.seeds, false), zooms: zoomsOf(asked), hidden: listed(asked.hidden),
    settings: settingsOf(experiment, asked), skipper: asked.skipper,
    network: Object.fromEntries(NETWORK.map((key) => [key, asked[`net.${key}`] ?? ""])), priced: asked.priced ?? "",
    sort: asked.sort ?? null, descending: asked.descending === "1", wide: asked.wide === "1",
    runsSort: asked.runsSort ?? null, runsDescending: asked.runsDescending === "1", runsLike: asked.runsLike ?? "",
  };
}

// By the id of a chart: the ends of its axes, x first, where these do not show everything.
function zoomsOf(asked) {
  const found = CHARTS.map((id) => [id, (asked[`zoom.${id}`] ?? "").split(",").map(Number)]);
  return Object.fromEntries(found.filter(([, ends]) => ends.length === 4 && ends.every(Number.isFinite)));
}

// Whether an axis starts logarithmic: always for some columns, for others where values span decades.
function startsLog(experiment, column) {
  if (!column) return false;
  if (isLog(column)) return true;
  const ends = experiment.arms.flatMap((arm) => arm.runs.map((run) => run.history[column]?.at(-1))).filter((value) => typeof value === "number");
  return ends.length > 0 && spansDecades(ends);
}

function settingsOf(experiment, asked) {
  const tuned = experiment.tuned?.setting;
  const drawn = tuned ? experiment.arms.filter((arm) => arm.best) : experiment.arms;
  const values = {};
  for (const arm of experiment.arms)
    for (const [key, value] of Object.entries(arm.settings)) ((values[key] ||= {})[value] ||= new Set()).add(arm.name);
  const names = new Set(experiment.arms.map((arm) => arm.name));
  const found = {};
  for (const [key, having] of Object.entries(values)) {
    const options = Object.keys(having).sort((a, b) => valueOf(a) - valueOf(b) || a.localeCompare(b));
    if (options.length < 2) continue;
    const common = options.find((value) => having[value].size === names.size) ?? "";
    const given = asked[`set.${key}`];
    const preset = key === tuned ? BEST : drawn.length > MANY ? common : "";
    found[key] = { options, value: given === "" || options.includes(given) || (key === tuned && given === BEST) ? given : preset };
  }
  return found;
}
const valueOf = (text) => { // of a setting, also of one told as a fraction
  const [above, below] = text.split("/").map(Number);
  return below ? above / below : above;
};

// Write what differs from what the page would show anyway.
function writeState(changes) {
  Object.assign(state, changes);
  const parts = new URLSearchParams();
  const put = (key, value, usual) => value !== usual && value !== null && value !== undefined && parts.set(key, value);
  if (state.experiment) {
    for (const key of ["metric", "cost"]) parts.set(key, state[key]);
    for (const key of ["logX", "logY"]) parts.set(key, state[key] ? "1" : "0");
    for (const key of ["seeds", "descending", "wide", "runsDescending"]) put(key, state[key] ? "1" : "0", "0");
    for (const key of ["skipper", "sort", "runsSort"]) put(key, state[key]);
    put("runsLike", state.runsLike, "");
    put("hidden", [...state.hidden].join("|"), "");
    put("priced", state.priced, "");
    for (const key of NETWORK) put(`net.${key}`, state.network[key], "");
    for (const [key, { value }] of Object.entries(state.settings)) parts.set(`set.${key}`, value);
  } else {
    for (const key of OVERVIEW) put(key, state[key], "");
  }
  for (const [id, ends] of Object.entries(state.zooms)) parts.set(`zoom.${id}`, ends.map((value) => rounded(value, 6)).join(","));
  const start = state.experiment ? new URLSearchParams({ experiment: state.experiment.name }).toString() : "";
  history.replaceState(null, "", `#${[start, parts.toString()].filter(Boolean).join("&")}`);
  render();
}

// The arms that the settings let through.
const armsPicked = () => state.experiment.arms.filter((arm) => passes(arm, state.settings));
function passes(arm, settings, without = null) {
  return Object.entries(settings).every(([key, { value }]) => key === without || !value || arm.settings[key] === undefined
    || (value === BEST ? arm.best || !arm.runs.some((run) => run.status === "complete") : arm.settings[key] === value));
}
