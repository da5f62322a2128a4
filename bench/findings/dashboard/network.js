// The network: seconds of recorded runs, and of steps of priced models, on any link. The formulas are those of
// bench/link.py, bench/findings/elapsed.py, pay.py and prices.py; a test holds them together.

const REPORT_BITS = 15 * 64;
const FORMATS = { fp32: 32, fp16: 16, bf16: 16 };
const ALL_REDUCES = ["ring", "direct"]; // of dense gradients: the quicker one counts

const steps = (count, bits, net) => count * net.latency + bits / net.bandwidth;
const exchange = (count, bits, t, net) => (t.workers > 1 ? count * net.latency : 0) + (t.workers - 1) * bits / net.bandwidth;

// By link, the seconds up to the server and back.
const LINKS = {
  star: (t, net) => [steps(t.star_messages, t.star_bits, net), 0],
  parallel: (t, net) => {
    const agreed = steps(t.agreement_rounds, t.agreement_bits, net);
    const flags = steps(t.flag_rounds, t.flag_rounds, net);
    return [steps(t.upload_rounds, t.longest_upload_bits, net) + flags + agreed, steps(t.answers, t.answer_bits, net) + agreed];
  },
  ring: (t, net) => {
    const [rounds, bits] = [t.upload_rounds + t.agreement_rounds, t.longest_upload_bits + t.agreement_bits];
    const half = (t.workers - 1) * (rounds * net.latency + bits / t.workers / net.bandwidth);
    return [half, half];
  },
  direct: (t, net) => {
    const half = exchange(t.upload_rounds + t.agreement_rounds, (t.longest_upload_bits + t.agreement_bits) / t.workers, t, net);
    return [half, half];
  },
  sharded: (t, net) => [
    exchange(t.answers, t.answers * (REPORT_BITS + 64 * t.workers), t, net)
      + exchange(t.agreement_rounds, t.agreement_bits, t, net)
      + exchange(t.upload_rounds, t.longest_upload_bits / t.workers, t, net),
    exchange(t.answers, t.answer_bits / t.workers + t.answers * 64 * (3 + t.workers), t, net),
  ],
  gather: (t, net) => [
    exchange(t.answers, t.answers * REPORT_BITS, t, net) + exchange(t.agreement_rounds, t.agreement_bits, t, net)
      + exchange(t.upload_rounds, t.longest_upload_bits, t, net),
    0,
  ],
};
const linkSeconds = (link, t, net) => LINKS[link](t, net).reduce((a, b) => a + b);

// The seconds since the first round at each evaluation of a run; null where it does not tell.
function elapsed(run, arm, link, net, share = 1) {
  const { traffic, round, num_backwards } = run.history;
  if (!traffic || traffic.includes(null)) return null;
  const hidden = arm.overlaps ? net.overlap * net.step : 0;
  let [total, rounds, passes, before] = [0, 0, 0, null];
  return traffic.map((now, at) => {
    const t = { workers: now.workers };
    for (const key of Object.keys(now)) if (key !== "workers") t[key] = now[key] - (before ? before[key] : 0);
    t.longest_upload_bits *= share;
    const fresh = round[at] - rounds;
    const computed = (num_backwards[at] - passes) / t.workers * net.step / arm.passes;
    total += computed + Math.max(0, linkSeconds(link, t, net) - fresh * hidden);
    [rounds, passes, before] = [round[at], num_backwards[at], now];
    return total;
  });
}

// The seconds until each complete run of an arm reaches the target, on the link that takes least.
function finish(arm, links, net, share = 1) {
  const ended = arm.runs.filter((run) => !unfinished(run)); // a diverged run misses the target
  if (!ended.length) return null;
  const found = links.map((link) => {
    const reached = ended.filter((run) => run.status === "complete" && run.target_round !== null);
    const times = reached.map((run) => elapsed(run, arm, link, net, share)?.[run.history.round.indexOf(run.target_round)]);
    return { link, times, seeds: reached.map(({ seed }) => seed), num: ended.length, missed: ended.length - reached.length, mean: times.length ? mean(times) : Infinity };
  }).filter(({ times }) => !times.includes(undefined));
  return found.sort((a, b) => a.mean - b.mean)[0] ?? null;
}

// ---- steps of a priced model

// The line of least squares, rising or level and not below 0 at the origin.
function lineAt(wanted, sizes, seconds) {
  const [size, second] = [mean(sizes), mean(seconds)];
  const spread = sizes.reduce((sum, at) => sum + (at - size) ** 2, 0);
  const fitted = sizes.reduce((sum, at, i) => sum + (at - size) * (seconds[i] - second), 0) / spread;
  const slope = Math.min(Math.max(fitted, 0), second / size);
  return second + slope * (wanted - size);
}

function priced(recipe, workers, dim) {
  const measured = Object.keys(recipe.works).map(Number).sort((a, b) => a - b);
  const sizes = measured.filter((size) => "gather" in recipe.works[size].seconds); // of larger numbers, answers are not that long
  if (measured.length === 1 && sizes[0] === workers) return recipe.works[workers];
  const beyond = sizes.findIndex((size) => size > workers);
  const high = Math.max(1, beyond < 0 ? sizes.length - 1 : beyond);
  const [low, top] = [sizes[high - 1], sizes[high]];
  const [a, b] = [recipe.works[low], recipe.works[top]];
  const growth = Math.log(Math.max(1, b.answer_bits / a.answer_bits)) / Math.log(top / low);
  const timed = (name) => measured.filter((size) => name in recipe.works[size].seconds);
  const seconds = Object.fromEntries(Object.keys(a.seconds)
    .map((name) => [name, lineAt(workers, timed(name), timed(name).map((size) => recipe.works[size].seconds[name]))]));
  const answer_bits = sizes.includes(workers) ? recipe.works[workers].answer_bits : Math.min(32 * dim, a.answer_bits * (workers / low) ** growth);
  return { ...b, answer_bits, seconds };
}

function ofRound(workers, work, lazy) {
  const agrees = work.offer_bits > 0 ? 1 : 0;
  return { workers, upload_rounds: 1, longest_upload_bits: work.upload_bits, agreement_rounds: agrees,
    agreement_bits: work.offer_bits, flag_rounds: lazy ? 1 : 0, answers: 1, answer_bits: work.answer_bits };
}

function stepOf(name, collective, compute, own, link, hidden) {
  const sent = link[0] + link[1];
  return { name, collective, own, exposed: sent - Math.min(hidden, sent), total: compute + own + sent - Math.min(hidden, sent) };
}

function stepsOf(model, workers, net) {
  const hidden = net.overlap * net.step;
  const dense = Object.entries(FORMATS).map(([name, bits]) => {
    const traffic = ofRound(workers, { upload_bits: bits * model.dim, offer_bits: 0, answer_bits: 0 }, false);
    return ALL_REDUCES.map((link) => stepOf(name, link, net.step, model.rounding_s[name], LINKS[link](traffic, net), hidden))
      .sort((a, b) => a.total - b.total)[0];
  });
  const others = Object.entries(model.recipes).map(([name, recipe]) => {
    const work = priced(recipe, workers, model.dim);
    const compute = net.step * (recipe.second_pass ? 2 : 1);
    return Object.entries(work.seconds)
      .map(([collective, own]) => stepOf(name, collective, compute, own, LINKS[collective](ofRound(workers, work, recipe.lazy), net), recipe.overlaps ? hidden : 0))
      .sort((a, b) => a.total - b.total)[0];
  });
  return { dense: dense.sort((a, b) => a.total - b.total), others: others.sort((a, b) => a.total - b.total) };
}

// ---- what is shown

const SLIDERS = { // the slider's position -> the value, and how it is told
  bandwidth: { of: (at) => 10 ** at, told: (v) => prefixed(v, "bit/s", 3) },
  latency: { of: (at) => 10 ** at, told: (v) => (v < 1e-3 ? `${Number((v * 1e6).toPrecision(2))} µs` : `${Number((v * 1e3).toPrecision(2))} ms`) },
  step: { of: (at) => (at <= -4.95 ? 0 : 10 ** at), told: (v) => `${Number((v * 1e3).toPrecision(2))} ms` },
  overlap: { of: (at) => at, told: (v) => `${Math.round(100 * v)} %` },
  workers: { of: (at) => Math.round(2 ** at), told: (v) => String(v) },
};
function network() {
  return Object.fromEntries(Object.entries(SLIDERS).map(([name, { of }]) => [name, of(Number(byId(`net-${name}`).value))]));
}

// With a link chosen, the "modelled seconds" of all charts are those on it.
function applyNetwork() {
  for (const [key, value] of Object.entries(state.network)) {
    const control = byId(`net-${key}`);
    control.value = value || (control.defaultValue ?? control.options[0].value);
  }
  const [choice, net] = [byId("net-link").value, network()];
  for (const [name, { of, told: words }] of Object.entries(SLIDERS))
    byId(`net-${name}-told`).textContent = words(of(Number(byId(`net-${name}`).value)));
  for (const arm of state.experiment.arms) {
    const links = choice === "quickest" ? arm.links.filter((name) => COLLECTIVES.includes(name)) : arm.links.filter((name) => name === choice);
    const best = links.length ? finish(arm, links, net) : null;
    for (const run of arm.runs) {
      run.history.recorded_s ??= run.history.modelled_s ?? null;
      const link = best?.link ?? links[0];
      const times = choice === "recorded" ? run.history.recorded_s : link ? elapsed(run, arm, link, net) : null;
      if (times) run.history.modelled_s = times;
      else delete run.history.modelled_s;
    }
  }
}
const COLLECTIVES = [...ALL_REDUCES, "sharded", "gather"];

// How many times sooner one is there than the other, over the seeds with which both are; marked if these are not all.
function sooner(other, one) {
  const common = one.seeds.filter((seed) => other.seeds.includes(seed));
  const over = ({ seeds, times }) => mean(common.map((seed) => times[seeds.indexOf(seed)]));
  const num = Math.max(one.num, other.num);
  return common.length ? (over(other) / over(one)).toFixed(2) + (common.length < num ? ` (${common.length} of ${num} seeds)` : "") : "";
}

function drawNetwork() {
  const [choice, net] = [byId("net-link").value, network()];
  const shown = armsPicked();
  const names = namesOf(shown);
  const rows = [];
  for (const arm of shown) {
    const links = choice === "quickest" ? arm.links.filter((name) => COLLECTIVES.includes(name)) : arm.links.filter((name) => name === choice);
    if (choice === "recorded" || !links.length) continue;
    if (arm.dense && choice === "quickest") {
      for (const [name, bits] of Object.entries(FORMATS)) {
        const found = finish(arm, ALL_REDUCES, net, bits / 32);
        if (found) rows.push({ name: `${name} all-reduce`, dense: true, ...found });
      }
      continue;
    }
    const found = finish(arm, links, net);
    if (found) rows.push({ name: names.get(arm.label), dense: arm.dense, ...found });
  }
  const silent = shown.filter((arm) => arm.runs.some((run) => !run.history.traffic)).map((arm) => names.get(arm.label));
  rows.sort((a, b) => a.mean - b.mean);
  const best = rows.find((row) => row.dense);
  const head = ["recipe", "carried by", "seconds to the target", "times sooner than the best dense"];
  const number = (v) => (Number.isFinite(v) ? told(v, 4) : "missed");
  const body = rows.map((row) => [row.name, row.link, number(row.mean) + (row.missed ? ` (${row.missed} missed)` : ""),
    best ? sooner(best, row) : ""]);
  fillTable("network-table", head, body);
  byId("network-table").hidden = choice === "recorded";
  byId("network-told").textContent = choice === "recorded" ? "Modelled seconds are those that the runs were recorded with; choose another network to change them everywhere."
    : (silent.length ? `Recorded without what seconds follow from: ${silent.join(", ")}. ` : "") + "Compressors' own time is not in these seconds.";
}

function drawPrices() {
  const section = byId("prices-title").closest("section");
  section.hidden = !data.prices?.length;
  if (section.hidden) return;
  const model = data.prices.find(({ name }) => name === state.priced) ?? data.prices[0];
  fill(byId("priced"), data.prices.map(({ name }) => name), model.name);
  const net = network();
  const { dense, others } = stepsOf(model, net.workers, net);
  const ms = (s) => told(Number((1e3 * s).toPrecision(4)));
  const rows = [...dense.map((step) => ({ ...step, name: `${step.name} all-reduce` })), ...others].sort((a, b) => a.total - b.total);
  fillTable("prices-table", ["recipe", "carried by", "ms a step", "own work", "waited for", "times quicker than the best dense"],
    rows.map((step) => [step.name, step.collective, ms(step.total), ms(step.own), ms(step.exposed), (dense[0].total / step.total).toFixed(2)]));
  const hides = dense[0].exposed <= 1e-3 * dense[0].total;
  byId("prices-told").textContent = `${model.dim.toLocaleString("en")} parameters. ` + (hides ? "Nothing pays: all-reduce hides all of its communication."
    : others[0].total < dense[0].total ? `${others[0].name} pays if it needs fewer than ${(dense[0].total / others[0].total).toFixed(2)}× the steps to your accuracy.`
      : "Nothing pays: no recipe's step is shorter than the best dense one.");
  const bandwidths = Array.from({ length: 57 }, (_, at) => 6 + at / 10);
  const sizes = Array.from({ length: 29 }, (_, at) => Math.round(2 ** (1 + at / 4))).filter((size, at, all) => size !== all[at - 1]);
  const names = [], z = [], text = [];
  for (const size of sizes) {
    const line = bandwidths.map((at) => {
      const found = stepsOf(model, size, { ...net, bandwidth: 10 ** at });
      const winner = found.others[0].total < found.dense[0].total ? found.others[0] : found.dense[0];
      if (!names.includes(winner.name)) names.push(winner.name);
      return [winner.name, found.dense[0].total / winner.total];
    });
    z.push(line.map(([name]) => names.indexOf(name)));
    text.push(line.map(([name, factor]) => `${name in FORMATS ? `${name} all-reduce` : name}, ${factor.toFixed(2)}×`));
  }
  const ofName = (name) => data.greys[name] ?? shade(name);
  const scale = names.flatMap((name, at) => [[at / names.length, ofName(name)], [(at + 1) / names.length, ofName(name)]]);
  draw("map", `the quickest step of ${model.name} over bandwidth and workers`, [{
    type: "heatmap", x: bandwidths.map((at) => 10 ** at), y: sizes, z, text, colorscale: scale, zmin: -0.5, zmax: names.length - 0.5,
    colorbar: { tickvals: names.map((_, at) => at), ticktext: names, thickness: 12 },
    hovertemplate: "%{y} workers, %{x:.2s}bit/s: %{text}<extra></extra>",
  }], layout({ title: { text: "bandwidth of a machine" }, type: "log", tickformat: "~s", ticksuffix: "bit/s", dtick: 1 },
    { title: { text: "workers" }, type: "log", tickvals: [2, 4, 8, 16, 32, 64, 128, 256] }),
  ["workers", ...bandwidths.map((at) => prefixed(10 ** at, "bit/s", 3))], text.map((line, at) => [sizes[at], ...line]));
}
