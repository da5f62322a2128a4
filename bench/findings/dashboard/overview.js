// The overview: all experiments in a sentence each, and what they have in common.

const OVERVIEW = ["like", "order", "falling", "problem", "recipe", "aim", "against"]; // its keys in the address

function overviewState(asked) {
  return { ...Object.fromEntries(OVERVIEW.map((key) => [key, asked[key] ?? ""])) };
}

const COLUMNS = [
  { key: "name", title: "experiment", name: true },
  { key: "sentence", title: "what it trains", name: true },
  { key: "arms", title: "arms" },
  { key: "seeds", title: "seeds each" },
  { key: "best", title: "best recipe", name: true },
  { key: "saving", title: "saving both ways" },
  { key: "final", title: "final" },
];

function drawOverview() {
  const experiments = data.experiments.map(({ name, about }) => ({ name, ...about }));
  const like = state.like.toLowerCase().split(/\s+/).filter(Boolean);
  const found = experiments.filter(({ name, sentence, best }) => like.every((word) => `${name} ${sentence ?? ""} ${best ?? ""}`.toLowerCase().includes(word)));
  const valueOf = ({ [state.order]: value }) => (state.order === "saving" ? value?.[1] : state.order === "final" ? parseFloat(value) : value) ?? null;
  const rows = state.order ? sorted(found, valueOf, state.falling === "1") : found;
  const head = sortable(COLUMNS, state.order, state.falling === "1", (key) => writeState({ order: key, falling: state.order === key && state.falling !== "1" ? "1" : "" }));
  put("experiments", head, rows.map((each) => make("tr", {}, ...COLUMNS.map(({ key, title, name }) => {
    if (key === "name") return make("th", { scope: "row", className: "name" }, make("a", { href: linkTo(each.name), textContent: each.name }));
    const value = key === "saving" ? each.saving?.[0] : each[key];
    const cell = make("td", { className: key === "sentence" ? "name sentence" : name ? "name" : "", textContent: value ?? (key === "sentence" ? "being read …" : "") });
    cell.dataset.title = title;
    return cell;
  }))));
  byId("like").value = state.like;
  byId("found").textContent = found.length < experiments.length ? `${found.length} of ${experiments.length} experiments` : "";
  byId("status").textContent = `${experiments.length} experiments`;
  byId("unknown").hidden = !state.unknown;
  byId("unknown").textContent = `There is no experiment “${state.unknown}” here. These there are:`;
  drawLeaders();
}
const linkTo = (name) => `#${new URLSearchParams({ experiment: name })}`;

// Problems that several experiments solve, with their experiments' names.
function problemsShared() {
  const having = new Map();
  for (const { name, about } of data.experiments)
    for (const problem of about?.problems ?? []) having.set(problem, [...(having.get(problem) ?? []), name]);
  return [...having].filter(([, names]) => names.length > 1).sort((a, b) => b[1].length - a[1].length);
}

// The first row of a run whose metric is better than the target; -1 if there is none.
function reachedAt(run, { metric, value }) {
  return (run.history[metric] ?? []).findIndex((v) => v !== null && (data.falling.includes(metric) ? v < value : v > value));
}

function drawLeaders() {
  const shared = problemsShared();
  byId("leaders-title").closest("section").hidden = !shared.length;
  if (!shared.length) return;
  const [problem, names] = shared.find(([each]) => each === state.problem) ?? shared[0];
  fill(byId("problem"), shared.map(([each]) => each), problem, Object.fromEntries(shared.map(([each, all]) => [each, `${each} (${all.length} experiments)`])));
  const missing = names.filter((name) => !data.loaded[name]);
  want(missing);
  const there = names.map((name) => data.loaded[name]).filter(Boolean);
  byId("leaders-told").textContent = missing.length ? `Being read: ${missing.join(", ")}.` : "";
  if (!there.length) return;
  const arms = there.flatMap((experiment) => experiment.arms.filter((arm) => arm.problem === problem && (!experiment.tuned || arm.best))
    .map((arm) => ({ ...arm, experiment: experiment.name, label: `${experiment.name}: ${arm.label}`, name: `${experiment.name}: ${arm.name}` })));
  const aims = there.map(({ target }) => target).filter(Boolean);
  const { metric } = aims[0];
  const values = [...new Set(aims.filter((aim) => aim.metric === metric).map(({ value }) => value))].sort((a, b) => a - b);
  const common = values.toSorted((a, b) => aims.filter((aim) => aim.value === b).length - aims.filter((aim) => aim.value === a).length)[0];
  const aim = { metric, value: values.includes(Number(state.aim)) && state.aim ? Number(state.aim) : common };
  fill(byId("aim"), values.map(String), String(aim.value), Object.fromEntries(values.map((value) => [value, amount(metric, value)])));
  const recipes = [...new Set(arms.map(({ recipe }) => recipe))].sort();
  const recipe = state.recipe === "all" || recipes.includes(state.recipe) ? state.recipe : recipes.includes("sgd") ? "sgd" : "all";
  fill(byId("recipe"), ["all", ...recipes], recipe);
  const has = new Set(arms.flatMap((arm) => arm.runs.flatMap((run) => Object.keys(run.history))));
  const costs = data.costs.filter((column) => has.has(column));
  const cost = [state.against, "total_bits", costs[0]].find((column) => costs.includes(column)); // threads send no bits
  fill(byId("against"), costs, cost, data.titles);

  const drawn = arms.filter((arm) => recipe === "all" || arm.recipe === recipe);
  const named = namesOf(drawn);
  const look = looks(drawn.map((arm) => ({ key: arm.label, recipe: arm.recipe })));
  const entries = drawn.map((arm) => ({ ...arm, name: named.get(arm.label), look: look.get(arm.label) }));
  const log = isLog(cost);
  const [marks, room] = atTarget(aim, metric, isLog(metric));
  draw("leaders", `${data.titles[metric]} against ${data.titles[cost]}, ${problem}`, curves(entries, cost, metric),
    layout(axisOf(cost, log), { ...axisOf(metric, isLog(metric)), ...room }, marks), ...curvesData(entries, cost, metric));
  byId("leaders-legend").replaceChildren(...entries.map((entry) => make("span", { innerHTML: swatch(entry.look) }, ` ${entry.name}`)));

  const everywhere = namesOf(arms);
  const board = arms.map((arm) => {
    const ended = arm.runs.filter((run) => !unfinished(run));
    const rows = ended.filter((run) => run.status === "complete").map((run) => [run, reachedAt(run, aim)]);
    const reached = rows.filter(([, at]) => at >= 0);
    const of = (column) => (reached.length ? mean(reached.map(([run, at]) => run.history[column]?.[at] ?? NaN)) : null);
    const ends = rows.map(([run]) => run.history[metric]?.at(-1)).filter((value) => value !== undefined && value !== null);
    return { arm, num: ended.length, reached: reached.length, bits: of("total_bits"), up: of("uplink_bits"), rounds: of("round"), end: ends.length ? mean(ends) : null };
  });
  const ranked = sorted(board.filter(({ num }) => num), ({ bits, reached, num }) => (reached === num ? bits : null), false);
  const head = ["recipe", "experiment", "batch", "reached", "rounds", "uplink", "both ways", "final"];
  const words = (column, value) => (value === null || Number.isNaN(value) ? "" : amount(column, value));
  fillTable("leaders-table", head, ranked.map(({ arm, num, reached, bits, up, rounds, end }) => [
    everywhere.get(arm.label).slice(arm.experiment.length + 2), arm.experiment, arm.batch ?? "", `${reached} of ${num}`,
    words("round", rounds === null ? null : Math.round(rounds)), words("uplink_bits", up), words("total_bits", bits), words(metric, end)]));
}
