// The tables of an experiment: its costs, and its runs.

// A head whose titles sort; `on` is called with the key of a column.
function sortable(columns, sort, descending, on) {
  return make("tr", {}, ...columns.map(({ key, title, name }) => {
    const button = make("button", { type: "button", textContent: title, onclick: () => on(key) });
    button.dataset.column = key;
    const cell = make("th", { scope: "col", className: name ? "name" : "" }, button);
    if (sort === key) {
      cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
      button.append(descending ? " ↓" : " ↑");
    }
    return cell;
  }));
}

// Rows in the order of their values; missing ones come last.
function sorted(rows, valueOf, descending) {
  return [...rows].sort((a, b) => {
    const [p, q] = [valueOf(a), valueOf(b)];
    if (p === null || q === null || p === undefined || q === undefined) return (p ?? null) === null ? ((q ?? null) === null ? 0 : 1) : -1;
    const order = typeof p === "string" ? p.localeCompare(q) : p - q;
    return descending ? -order : order;
  });
}

// Put rows into a table, and the focus back onto the title that had it.
function put(id, head, body) {
  const table = byId(id);
  const focused = table.contains(document.activeElement) ? document.activeElement.dataset.column : undefined;
  table.replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
  if (focused !== undefined) table.querySelector(`button[data-column="${CSS.escape(focused)}"]`)?.focus();
}

function drawTable() {
  const { table } = state.experiment;
  byId("table-title").textContent = table && table.at === "end" ? "After the last round" : "At the target";
  byId("caption").textContent = table ? table.caption : "No run is complete yet.";
  byId("table-tools").hidden = !table;
  if (!table) return byId("table").replaceChildren();
  const shown = table.columns.map((column, at) => ({ ...column, at })).filter(({ key }) => state.wide || !table.main.length || table.main.includes(key));
  if (table.main.length && !state.wide) shown.sort((a, b) => table.main.indexOf(a.key) - table.main.indexOf(b.key));
  byId("wide").checked = state.wide;
  byId("wide").parentElement.hidden = !table.main.length;
  const head = sortable(shown, state.sort, state.descending, (key) => writeState({ sort: key, descending: state.sort === key && !state.descending }));
  const at = table.columns.findIndex(({ key }) => key === state.sort);
  const rows = at < 0 ? table.rows : sorted(table.rows, (row) => row[at][1], state.descending);
  put("table", head, rows.map((row) => make("tr", {}, ...shown.map(({ at: cell, name }, place) => {
    const [textContent, , best] = row[cell];
    return make(place ? "td" : "th", { className: `${name ? "name" : ""}${best ? " best" : ""}`, ...(!place && { scope: "row" }) }, best ? make("b", { textContent }) : textContent);
  }))));
  return undefined;
}

const TEXTS = [["md", "Markdown"], ["tex", "LaTeX"], ["csv", "CSV"]];
for (const [kind, title] of TEXTS)
  byId("table-downloads").append(make("button", { type: "button", textContent: title,
    onclick: () => save(`${state.experiment.name}.${kind}`, state.experiment.table.texts[kind]) }), " ");

// The experiment's further tables, as its file declares them.
function drawFurther() {
  const { name: experiment, further } = state.experiment;
  byId("further").replaceChildren(...further.flatMap(({ name, title: heading, caption, columns, rows, texts }) => {
    const head = make("tr", {}, ...columns.map((column) => make("th", { scope: "col", className: column.name ? "name" : "", textContent: column.title })));
    const body = rows.map((row) => make("tr", {}, ...row.map(([textContent], at) => make(at ? "td" : "th", { className: columns[at].name ? "name" : "", textContent, ...(!at && { scope: "row" }) }))));
    const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
    const downloads = TEXTS.map(([kind, title]) => make("button", { type: "button", textContent: title, onclick: () => save(`${experiment}.${name}.${kind}`, texts[kind]) }));
    return [make("h3", { textContent: heading }), make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: heading }, table),
      make("div", { className: "tools" }, "Download ", ...downloads), make("p", { textContent: caption })];
  }));
}

function drawRuns() {
  const { metric, experiment } = state;
  const bitsAt = (run) => run.target_round === null ? null : run.history.total_bits?.[run.history.round.indexOf(run.target_round)] ?? null;
  const dense = Object.fromEntries((experiment.arms.find(({ label }) => label === "sgd")?.runs ?? []).map((run) => [run.seed, bitsAt(run)]));
  const best = (run) => {
    const values = (run.history[metric] ?? []).filter((value) => value !== null);
    return values.length ? (data.falling.includes(metric) ? Math.min(...values) : Math.max(...values)) : null;
  };
  const last = (run, column) => run.history[column]?.at(-1) ?? null;
  const inFull = experiment.arms.map((arm) => ({ ...arm, told: [arm.name, ...Object.entries(arm.settings).map((pair) => pair.join("="))].join(", ") }));
  const columns = [
    { key: "run", title: "run", name: true, of: (run, arm) => arm.told },
    { key: "seed", title: "seed", of: (run) => run.seed },
    { key: "state", title: "state", name: true, of: (run) => statusOf(run) },
    { key: "rounds", title: "rounds", of: (run) => last(run, "round"), words: inWords("round") },
    ...(metric ? [
      { key: "last", title: `last ${data.titles[metric]}`, of: (run) => last(run, metric), words: inWords(metric) },
      { key: "best", title: "best", of: best, words: inWords(metric) },
    ] : []),
    { key: "bits", title: "bits both ways", of: (run) => last(run, "total_bits"), words: inWords("total_bits") },
    ...(Object.keys(dense).length ? [
      { key: "saving", title: "saving at the target, to sgd of this seed", of: (run) => (bitsAt(run) && dense[run.seed] ? dense[run.seed] / bitsAt(run) : null),
        words: (value) => (value === null ? "" : `${told(value, 3)}×`) }] : []),
  ];
  const all = inFull.flatMap((arm) => arm.runs.map((run) => ({ run, values: Object.fromEntries(columns.map(({ key, of }) => [key, of(run, arm)])) })));
  const like = state.runsLike.toLowerCase();
  const found = all.filter(({ values }) => !like || `${values.run} seed ${values.seed} ${values.state}`.toLowerCase().includes(like));
  const rows = state.runsSort ? sorted(found, ({ values }) => values[state.runsSort], state.runsDescending) : found;
  const head = sortable(columns, state.runsSort, state.runsDescending, (key) => writeState({ runsSort: key, runsDescending: state.runsSort === key && !state.runsDescending }));
  head.append(make("th", { scope: "col", className: "name", textContent: "files" }));
  put("runs", head, rows.map(({ run, values }) => {
    const link = (file) => make("a", { href: `${run.path.split("/").map(encodeURIComponent).join("/")}/${file}`, textContent: file });
    return make("tr", {}, ...columns.map(({ key, name, words }) => make("td", {
      textContent: words ? words(values[key]) : values[key] ?? "", className: name ? "name" : "", title: key === "state" ? run.told : "",
    })), make("td", { className: "name" }, link("config.yaml"), " ", ...(run.history.round ? [link("history.csv")] : [])));
  }));
  byId("runs-like").value = state.runsLike;
  byId("runs-told").textContent = found.length < all.length ? `${found.length} of ${all.length} runs` : `${all.length} runs`;
}

function statusOf(run) {
  const when = new Date(1000 * run.written).toLocaleString();
  const heard = run.status === "interrupted" ? `last heard of ${when}` : run.told;
  return unfinished(run) && heard ? `${run.status}: ${heard}` : run.status;
}
