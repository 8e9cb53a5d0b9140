// The page's sections, each a function of the status that the server gave.

import { qualityChart } from "./chart.js";
import { ago, emphasised, h, number, percent, plural, span, words } from "./dom.js";
import { evidenceBlocks, meter } from "./evidence.js";

const STEPS = ["open", "training", "evaluating", "shadowing", "canary", "promoting", "watching", "done"];
const OUTCOMES = { done: ["good", "Promoted"], rejected: ["warn", "Rejected"], failed: ["bad", "Failed"], rolled_back: ["bad", "Rolled back"] };
const VERDICTS = { STABLE: ["good", "Stable"], INCONCLUSIVE: ["", "Inconclusive"], DRIFTED: ["warn", "Drifted"] };
const EVENT_KINDS = { promoted: "good", done: "good", approved: "good", rolled_back: "bad", failed: "bad", rejected: "warn", latched: "bad" };

const pill = (kind, ...text) => h("span", { class: `pill ${kind}` }, text);
const head = (id, title, ...more) => h("div", { class: "head" }, h("h2", { id }, title), more);
const outcome = (cycle) => (cycle.is_open ? ["busy", words(cycle.state)] : OUTCOMES[cycle.state] ?? ["", words(cycle.state)]);

export function engineChips(engines) {
  if (!engines.length) return [pill("warn", "no engine seen")];
  const ready = engines.filter((engine) => engine.ready).length;
  return [pill(ready === engines.length ? "good" : "bad", `${ready} of ${plural(engines.length, "engine")} ready`)];
}

export function aliasCards(status, chosen, width, on) {
  if (!status.aliases.length) return [noAlias(on)];
  return status.aliases.map((alias) =>
    h("article", { class: "card", "data-alias": alias.name, "data-chosen": status.aliases.length > 1 && alias.name === chosen },
      h("div", { class: "top" },
        h("div", {},
          h("div", { class: "head" },
            h("button", { class: "name", type: "button", "data-focus": `alias-${alias.name}`, "aria-pressed": String(alias.name === chosen), onclick: () => on.choose(alias.name) }, alias.name),
            alias.cycle?.is_open && pill("busy", words(alias.cycle.state)),
            alias.drift.verdict === "DRIFTED" && pill("warn", "▲ drifted"),
            alias.latched && pill("bad", "latched")),
          roles(alias)),
        h("p", { class: "score" }, h("b", {}, percent(alias.quality.now)),
          h("span", { class: "small muted" }, "served quality", h("br"), alias.quality.labelled ? `last ${alias.quality.labelled} labelled` : "nothing labelled yet"))),
      alias.latched && latched(alias, on),
      alias.quality.points.length > 1 ? qualityChart(alias.quality.points, alias.marks, width) : noQuality(alias),
      aliasActions(alias, on)));
}

function roles(alias) {
  const shown = [["champion", alias.champion], ["previous", alias.previous], ["candidate", alias.candidate]].filter(([, name]) => name);
  return h("dl", { class: "roles" }, shown.map(([role, name]) => h("div", {}, h("dt", {}, role), h("dd", { class: "mono", "data-role": role }, name))));
}

function aliasActions(alias, on) {
  const button = (name, label, enabled, why) =>
    h("button", { type: "button", "data-focus": `${name}-${alias.name}`, disabled: !enabled, title: enabled ? null : why, onclick: () => on[name](alias) }, label);
  return h("div", { class: "actions", role: "group", "aria-label": `Actions on ${alias.name}` },
    button("promote", "Promote…", true),
    button("rollback", "Roll back…", alias.previous || alias.cycle?.is_open, "There is nothing to roll back to yet."),
    button("retrain", "Retrain…", !alias.cycle?.is_open, "A cycle is running."));
}

function latched(alias, on) {
  return h("div", { class: "callout bad" },
    h("p", {}, `${plural(alias.failures, "cycle")} in a row failed, so no new one opens by itself. Read the reasons below, then:`),
    h("button", { type: "button", "data-focus": `unlatch-${alias.name}`, onclick: () => on.unlatch(alias) }, "Unlatch…"));
}

function noAlias(on) {
  return h("article", { class: "card empty" },
    h("h2", {}, "Name your first alias"),
    h("p", {}, "An alias is the name that your app sends as ", h("code", {}, "model"), ". It serves the base model until an adapter is promoted."),
    h("div", {}, h("button", { type: "button", class: "main", "data-focus": "new-alias", onclick: on.newAlias }, "New alias…")),
    h("p", { class: "small" }, "Or list it in trimtab.yaml, where its scorer and golden set are also set:"),
    h("pre", {}, h("code", {}, "aliases:\n  support:\n    scorer: exact\n    golden_set: golden.jsonl")));
}

function noQuality(alias) {
  const body = '{"request_id": "<x-request-id of a reply>",\n "expected": "<the right reply>"}';
  return h("div", { class: "empty" },
    h("p", {}, h("b", {}, "Quality over time appears here"), ` once requests to ${alias.name} have feedback. Send what the right reply would have been:`),
    h("pre", {}, h("code", {}, `POST /v1/feedback\n${body}`)));
}

export function driftPanel(alias, on) {
  const { drift } = alias;
  const title = head("drift-title", "Drift", drift.verdict && pill(...(VERDICTS[drift.verdict] ?? ["", drift.verdict])));
  if (!drift.verdict) return [title, ...noDrift(drift)];
  return [
    title,
    h("p", { class: "small muted" }, "Checked ", ago(drift.at), `: newest ${drift.current_size} requests against ${drift.reference_size} before.`),
    drift.reasons.length > 0 && h("ul", { class: "reasons" }, drift.reasons.map((reason) => h("li", {}, emphasised(reason)))),
    drift.topics?.length > 0 && h("div", {}, h("h3", {}, "What the new requests are about"), h("ul", { class: "compared" }, drift.topics.map(topic))),
    alias.slices?.length > 0 && h("div", {}, h("h3", {}, "Slices"), h("ul", { class: "stack" }, alias.slices.map(sliceLine))),
    drift.quality_current !== null && h("div", { class: "row" }, h("span", {}, "Quality, before → now"),
      h("span", {}, `${percent(drift.quality_reference, 1)} → ${percent(drift.quality_current, 1)}`)),
    h("div", {}, h("h3", {}, "Score against threshold (the line)"),
      h("ul", { class: "scores" }, drift.scores.map(detector))),
    drift.report && h("div", {}, h("button", { type: "button", "data-focus": "report", onclick: () => on.report(drift.id) }, "Open the Evidently report")),
  ];
}

function topic(found) {
  const about = found.words.length ? found.words.join(", ") : "one kind of request";
  const right = found.accuracy === null ? "" : `${found.accuracy_is_estimate ? "estimated " : ""}accuracy ${percent(found.accuracy)} ± ${Math.round(100 * found.accuracy_margin)}`;
  return h("li", {},
    h("div", { class: "row" }, h("span", {}, about), h("span", {}, found.unseen ? "unseen before" : `${percent(found.share_before)} before`)),
    meter(found.share, `${about}: ${percent(found.share)} of requests`),
    h("p", { class: "small muted" }, `${percent(found.share)} of requests since `, ago(found.since), right && `; ${right}`),
    h("ul", { class: "reasons small" }, found.examples.map((text) => h("li", {}, `“${text}”`))));
}

function sliceLine(check) {
  return h("li", {},
    h("div", { class: "head" }, h("code", {}, check.slice), pill(...(VERDICTS[check.verdict] ?? ["", check.verdict]))),
    check.reasons.length > 0 && h("p", { class: "small muted" }, emphasised(check.reasons[0])));
}

function detector(entry) {
  const ratio = entry.threshold > 0 ? entry.score / entry.threshold : 0;
  const alarms = ratio > 1;
  const name = words(entry.detector ?? entry.name ?? "detector");
  return h("li", {},
    h("div", { class: "row" }, h("span", {}, name, entry.kind && h("span", { class: "muted" }, ` · ${words(entry.kind)}`)),
      h("span", { class: alarms ? "down" : null }, `${number(entry.score)} / ${number(entry.threshold)}${alarms ? " ▲" : ""}`)),
    meter(ratio / (1 + ratio), `${name}: score ${number(entry.score)}, threshold ${number(entry.threshold)}`, `limit ${alarms ? "warn" : "plain"}`),
    entry.moved && h("p", { class: "small muted" }, String(entry.moved)));
}

function noDrift(drift) {
  if (!drift.enabled) return [h("p", { class: "empty" }, "Drift detection is off. Set drift.enabled in trimtab.yaml to have the traffic watched.")];
  const share = drift.requests / drift.needed;
  return [
    h("p", { class: "empty" }, share < 1 ? `The first verdict needs ${drift.needed} requests: a reference to compare against, and a window to judge.` : "There is enough traffic; the first verdict comes with the monitor's next check. Is `trimtab monitor` running?"),
    h("div", { class: "row" }, h("span", {}, "Requests so far"), h("span", {}, `${drift.requests} of ${drift.needed}`)),
    meter(share, `${drift.requests} of ${drift.needed} requests`),
  ];
}

export function cyclePanel(alias, cycle, past, on) {
  if (!cycle) {
    return [head("cycle-title", "Cycle"),
      h("p", { class: "empty" }, h("b", {}, "No cycle has run yet. "), "One opens by itself when drift costs quality: it trains an adapter on recent traffic, proves it in shadow, and promotes it. ", h("b", {}, "Retrain…"), " opens one now.")];
  }
  return [
    head("cycle-title", cycle.is_open ? "Running cycle" : past ? "Past cycle" : "Last cycle", h("code", { class: "muted" }, cycle.id), pill(...outcome(cycle)),
      past && h("button", { type: "button", class: "link", "data-focus": "current", onclick: () => on.showCycle(null) }, "Back to the newest")),
    h("p", { class: "small muted" }, `Opened by ${words(cycle.trigger)} `, ago(cycle.opened_at), cycle.closed_at ? `, ended after ${span(cycle.closed_at - cycle.opened_at)}` : "", cycle.candidate ? [", candidate ", h("code", {}, cycle.candidate)] : ""),
    stepper(cycle),
    h("p", {}, emphasised(lastWord(cycle))),
    !past && alias.awaits_approval && h("div", { class: "callout" }, h("p", {}, "This candidate waits for a person. With your approval it is promoted once the evidence suffices."),
      (cycle.evidence.doubts ?? []).map((doubt) => h("p", {}, doubt)),
      h("button", { type: "button", class: "main", "data-focus": "approve", onclick: () => on.approve(alias) }, "Approve…")),
    cycle.evidence.approved && h("p", { class: "small muted" }, `Approved by ${cycle.evidence.approved.by} `, ago(cycle.evidence.approved.at), "."),
    h("div", { class: "blocks" }, evidenceBlocks(cycle)),
  ];
}

// The newest event tells why the cycle stands where it stands.
const lastWord = (cycle) => cycle.events[0]?.message ?? cycle.reason;

function stepper(cycle) {
  const entered = Object.fromEntries(cycle.events.filter((e) => e.kind.startsWith("cycle.")).map((e) => [e.kind.slice(6), e.at]).reverse());
  const steps = STEPS.filter((state) => state !== "canary" || entered.canary || cycle.state === "canary");
  const ended = !cycle.is_open && cycle.state !== "done";
  const here = ended ? steps.findLastIndex((state) => entered[state] || state === "open") : steps.indexOf(cycle.state);
  return h("ol", { class: "steps", "aria-label": `Steps of the cycle; now ${words(cycle.state)}` }, steps.map((state, i) => {
    const kind = i < here || cycle.state === "done" ? "past" : i > here ? "next" : ended ? "ended" : "now";
    const leaves = steps.slice(i + 1).map((later) => entered[later]).find(Boolean) ?? cycle.closed_at;
    const lasted = entered[state] && leaves && state !== "done" ? span(leaves - entered[state]) : null;
    return h("li", { class: kind, "aria-current": kind === "now" ? "step" : null },
      h("i", { "aria-hidden": "true" }, kind === "past" ? "✓" : kind === "ended" ? "✕" : String(i + 1)), h("b", {}, state), lasted && h("span", { class: "small" }, lasted));
  }));
}

export function historyPanel(alias, cycles, on) {
  const title = head("history-title", "History of cycles");
  if (!cycles.length) return [title, h("p", { class: "empty" }, "Every cycle stays here with its outcome and the reason for it.")];
  const rows = cycles.map((cycle) => h("tr", {},
    h("td", { class: "tight" }, ago(cycle.opened_at)),
    h("td", {}, pill(...outcome(cycle))),
    h("td", { class: "tight" }, words(cycle.trigger)),
    h("td", {}, emphasised(cycle.reason)),
    h("td", { class: "tight" }, h("button", { type: "button", class: "link", "data-focus": `cycle-${cycle.id}`, onclick: () => on.showCycle(cycle.id), "aria-label": `Evidence of cycle ${cycle.id}` }, "Evidence"))));
  return [title, h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, ["Opened", "Outcome", "Trigger", "Reason", ""].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows)))];
}

export function adaptersPanel(alias, adapters, on) {
  const title = head("adapters-title", "Adapters", h("button", { type: "button", class: "tight", "data-focus": "upload", onclick: () => on.upload(alias) }, "Add…"));
  if (!adapters.length) return [title, h("p", { class: "empty" }, `No adapter of ${alias.name} yet. A cycle trains one; a PEFT LoRA that you have made can be added by hand.`)];
  return [title, h("ul", { class: "stack" }, adapters.map((adapter) => adapterLine(alias, adapter, on)))];
}

function adapterLine(alias, adapter, on) {
  const role = ["champion", "candidate", "previous"].find((name) => alias[name] === adapter.name);
  const action = role === "champion" ? null : adapter.resident
    ? h("button", { type: "button", class: "tight", "data-focus": `promote-${adapter.name}`, onclick: () => on.promote(alias, adapter.name) }, "Promote…")
    : role !== "candidate" && h("button", { type: "button", class: "tight", "data-focus": `load-${adapter.name}`, onclick: () => on.load(alias, adapter) }, "Load…");
  return h("li", {},
    h("div", { class: "head" }, h("code", {}, adapter.name), role && pill(role === "champion" ? "good" : role === "candidate" ? "busy" : "", role),
      h("button", { type: "button", class: "link", "data-focus": `card-${adapter.name}`, onclick: () => on.card(adapter.name), "aria-label": `Model card of ${adapter.name}` }, "Card"), action),
    h("p", { class: "small muted" }, `Rank ${adapter.rank}, ${(adapter.size_bytes / 1e6).toFixed(1)} MB, made `, ago(adapter.created_at), `; on ${adapter.engines_holding} of ${plural(adapter.engines_ready, "ready engine")}`));
}

export function eventsPanel(events) {
  const title = head("events-title", "What happened");
  if (!events.length) return [title, h("p", { class: "empty" }, "Every change is written here: who or what made it, and why.")];
  return [title, h("ul", { class: "log", tabindex: "0", "aria-label": "Events, newest first" }, events.map((event) => h("li", {},
    h("span", { class: "muted" }, ago(event.at)),
    h("span", {}, pill(EVENT_KINDS[event.kind.split(".").at(-1)] ?? "", words(event.kind))),
    h("p", {}, event.message, h("span", { class: "muted" }, ` ${event.alias ? `${event.alias}, ` : ""}by ${event.actor}`)))))];
}
