// Polls /api/v1/status and draws what changed.

import { get } from "./api.js";
import { askKey, confirmations } from "./dialogs.js";
import { byId, draw, refreshTimes, setServerTime } from "./dom.js";
import { adaptersPanel, aliasCards, cyclePanel, driftPanel, engineChips, eventsPanel, historyPanel } from "./panels.js";

const POLL_MS = 1500;
const RETRY_MS = 4000;
const SILENT_S = 15;

let status = null;
let chosen = null;
let pastCycle = null;
let timer;

const on = {
  ...confirmations({
    alias: (name) => status.aliases.find((alias) => alias.name === name),
    adapters: (name) => status.adapters.filter((adapter) => adapter.alias === name),
    done: () => poll(),
  }),
  choose(name) {
    chosen = name;
    pastCycle = null;
    render();
  },
  async showCycle(id) {
    const newest = status.aliases.some((alias) => alias.cycle?.id === id);
    pastCycle = id === null || newest ? null : await get(`cycles/${encodeURIComponent(id)}`);
    render();
    byId("cycle").scrollIntoView({ block: "nearest", behavior: "smooth" });
  },
};

async function poll() {
  clearTimeout(timer);
  let wait = POLL_MS;
  try {
    status = await get("status");
    setServerTime(status.now);
    live("on", "live");
    render();
  } catch (error) {
    if (error.status === 401 || error.status === 403) {
      live("wait", "key needed");
      askKey(error.message, poll);
      return;
    }
    live("off", "no connection");
    banner(error.message);
    wait = RETRY_MS;
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(poll, wait);
}

function live(state, text) {
  byId("live").dataset.state = state;
  byId("live").textContent = text;
}

function banner(text) {
  byId("banner").textContent = text;
  byId("banner").hidden = !text;
}

function trouble() {
  const { engines, now } = status;
  if (!engines.length) return "No engine has been seen yet. One starts with `trimtab up`; others are named under `engines` in trimtab.yaml. The controller reports them.";
  const silent = now - Math.max(...engines.map((engine) => engine.seen_at));
  if (silent > SILENT_S) return `The controller has not reported for ${Math.round(silent)} s, so nothing moves by itself. Is \`trimtab controller\` running?`;
  if (!engines.some((engine) => engine.ready)) return "No engine is ready: requests get 503 until one is. A start takes up to a minute; its log is in the state folder.";
  return "";
}

function render() {
  if (!status) return;
  banner(trouble());
  const alias = status.aliases.find((one) => one.name === chosen) ?? mostInNeed();
  chosen = alias?.name ?? null;
  byId("model").textContent = status.model.split("/").at(-1);
  draw(byId("engines"), status.engines, () => engineChips(status.engines));
  const width = cardWidth(status.aliases.length);
  draw(byId("aliases"), [status.aliases, chosen, width], () => aliasCards(status, chosen, width, on));
  draw(byId("events"), status.events, () => eventsPanel(status.events));
  if (!alias) {
    for (const id of ["cycle", "drift", "history", "adapters"]) draw(byId(id), null, () => []);
    return;
  }
  const cycle = pastCycle ?? alias.cycle;
  const adapters = status.adapters.filter((adapter) => adapter.alias === alias.name);
  const cycles = status.cycles.filter((one) => one.alias === alias.name);
  draw(byId("cycle"), [cycle, Boolean(pastCycle), alias.awaits_approval], () => cyclePanel(alias, cycle, Boolean(pastCycle), on));
  draw(byId("drift"), alias.drift, () => driftPanel(alias, on));
  draw(byId("history"), [alias.name, cycles], () => historyPanel(alias, cycles, on));
  draw(byId("adapters"), [alias.name, alias.champion, alias.candidate, alias.previous, adapters], () => adaptersPanel(alias, adapters, on));
}

// Where a person is likely to look first.
function mostInNeed() {
  const need = (alias) => (alias.latched ? 4 : 0) + (alias.cycle?.is_open ? 2 : 0) + (alias.drift.verdict === "DRIFTED" ? 1 : 0);
  return [...status.aliases].sort((a, b) => need(b) - need(a))[0];
}

// The chart is drawn for the width that a card will have, so that its text keeps its size.
function cardWidth(cards) {
  const grid = byId("aliases");
  const room = grid.clientWidth;
  const columns = Math.max(1, Math.min(cards, Math.floor((room + 18) / (420 + 18))));
  return Math.max(260, Math.round((room - (columns - 1) * 18) / columns - 42));
}

function theme() {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark" || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("trimtab-theme", document.documentElement.dataset.theme);
}

const kept = localStorage.getItem("trimtab-theme");
if (kept) document.documentElement.dataset.theme = kept;
byId("theme").addEventListener("click", theme);
document.addEventListener("visibilitychange", () => document.hidden || poll());
new ResizeObserver(() => render()).observe(byId("aliases"));
setInterval(refreshTimes, 1000);
poll();
