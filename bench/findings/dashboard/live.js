// A live server's data: the index first, then one experiment at a time, and of it only the runs that have changed.

const POLL_MS = 2000;
const wanted = new Set(); // names of experiments to fetch, besides the one that is shown

// Have these experiments fetched, if the page follows a server.
function want(names) {
  for (const name of names) wanted.add(name);
}

async function ask(path, tag) {
  const answer = await fetch(path, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
  if (answer.status === 304) return null;
  if (!answer.ok) throw new Error(answer.statusText);
  return { tag: answer.headers.get("ETag"), said: await answer.json() };
}

// Fetch an experiment; histories of runs that have not changed are those that the page has.
async function fetchExperiment(name) {
  const had = data.loaded[name];
  const { said } = await ask(`experiment.json?${new URLSearchParams({ name, since: had?.change ?? 0, server: data.server })}`);
  if (!said) return;
  const old = new Map((had?.arms ?? []).flatMap((arm) => arm.runs).map((run) => [run.path, run]));
  for (const run of said.arms.flatMap((arm) => arm.runs)) run.history ??= old.get(run.path).recorded ?? old.get(run.path).history;
  data.loaded[name] = said;
}

async function follow() {
  let tag = null;
  const versions = {}; // of the experiments that the page has
  for (;; await new Promise((resolve) => setTimeout(resolve, POLL_MS))) {
    try {
      const answer = await ask("index.json", tag);
      if (answer) {
        if (data && answer.said.server !== data.server) Object.keys(versions).forEach((name) => delete versions[name]);
        const loaded = data && answer.said.server === data.server ? data.loaded : {};
        data = { ...answer.said, loaded };
        tag = answer.tag;
        for (const name of Object.keys(data.loaded)) if (!data.experiments.some((e) => e.name === name)) delete data.loaded[name];
        state = readState();
        render();
      }
      const shown = state.experiment?.name ?? state.awaited;
      const names = [...(shown ? [shown] : []), ...(state.experiment ? [] : wanted)];
      const version = (name) => data.experiments.find((e) => e.name === name)?.version;
      for (const name of new Set(names)) {
        const there = version(name);
        if (!there || versions[name] === there) continue;
        await fetchExperiment(name);
        versions[name] = there;
        state = readState();
        render();
      }
    } catch {
      tag = null; // ask for the index again
      byId("status").textContent = "The server does not answer; its last data are shown.";
    }
  }
}
