// A cycle's evidence as blocks: why it opened, how training goes, what was measured, how shadow and watch stand.

import { lossCurve } from "./chart.js";
import { emphasised, h, number, percent, plural, points, span, words } from "./dom.js";

const SETS = [["golden", "Golden set"], ["new", "Held out, new traffic"], ["replay", "Held out, replay"], ["all", "Held out, all"]];
const NOISE = 0.01; // a difference that no colour should shout about
const DECISIONS = { promote: ["good", "Promote"], hold: ["busy", "Not yet"], reject: ["bad", "Reject"] };

export function evidenceBlocks(cycle) {
  const { drift, examples, job, shadow, waiting, watch } = cycle.evidence;
  return [
    !cycle.is_open && cycle.explanation && h("p", {}, emphasised(cycle.explanation)),
    drift && block("Why it opened", h("ul", { class: "reasons" }, (drift.reasons ?? []).map((reason) => h("li", {}, emphasised(reason))))),
    examples && cycle.state === "open" && gathering(examples),
    (cycle.job || job?.training) && training(cycle.job, job ?? {}),
    job?.evaluation && evaluation(job.evaluation),
    shadow && shadowing(shadow),
    waiting && waiting.state === cycle.state && h("p", { class: "small" }, waiting.reason),
    watch && watching(watch),
  ];
}

const block = (title, ...children) => h("div", { class: "block" }, h("h3", {}, title), children);
const facts = (entries) => h("dl", { class: "facts" }, entries.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));

export function meter(share, label, kind = "") {
  const bounded = Math.min(1, Math.max(0, share || 0));
  return h("div", { class: `meter ${kind}`, role: "img", "aria-label": label }, h("span", { "--share": `${(bounded * 100).toFixed(1)}%` }));
}

function gathering({ labelled, needed }) {
  return block("Waiting for feedback",
    h("div", { class: "row" }, h("span", {}, "Labelled since the drift"), h("span", {}, `${labelled} of ${needed}`)),
    meter(labelled / needed, `${labelled} of ${needed} labelled requests`));
}

function training(job, result) {
  const running = job && ["queued", "running"].includes(job.status);
  const measured = result.training ?? {};
  const detail = running ? job.detail ?? {} : measured;
  const scalars = Object.entries(detail).filter(([name, value]) => name !== "eta_s" && (typeof value === "number" || typeof value === "string"));
  const curves = running ? [["training", detail.curve?.train], ["held out", detail.curve?.heldout]] : [["training", measured.train_loss], ["held out", measured.heldout_loss]];
  const rows = result.dataset ? Object.entries(result.dataset).filter(([, value]) => Number.isInteger(value)) : [];
  return block("Training",
    job && h("div", { class: "row" }, h("span", {}, running ? words(job.phase ?? job.status) : job.status), h("span", {}, percent(job.progress))),
    job && meter(job.progress, `Job ${job.status}, ${percent(job.progress)}`, job.status === "succeeded" ? "good" : job.status === "failed" ? "warn" : ""),
    job?.error && h("p", { class: "fault" }, job.error),
    Number.isFinite(detail.eta_s) && running && h("p", {}, `About ${span(detail.eta_s)} of training left`),
    lossCurve(curves.map(([name, line]) => ({ name, points: line ?? [] })).filter(({ points }) => points.length > 1)),
    facts([...scalars, ...rows].slice(0, 8).map(fact)),
    job?.attempts > 1 && h("p", { class: "small muted" }, `Attempt ${job.attempts}`));
}

function fact([name, value]) {
  if (typeof value !== "number") return [words(name), value];
  const lasts = name === "seconds" || (name.endsWith("_s") && !name.endsWith("_per_s"));
  return lasts ? [words(name.replace(/_s$/, "")), span(value)] : [words(name), number(value)];
}

function evaluation(found) {
  const sets = SETS.map(([key, title]) => [title, key === "golden" ? found.golden : found.heldout?.[key]]).filter(([, set]) => set?.n > 0);
  if (!sets.length) return null;
  return block("Evaluation against the champion",
    h("ul", { class: "compared" }, sets.map(([title, set]) => compared(`${title}, ${plural(set.n, "example")}`, set.champion, set.candidate))),
    facts([
      found.served?.n > 0 && ["Through the engines", `${percent(found.served.served, 1)} (PyTorch ${percent(found.served.pytorch, 1)})`],
      found.base?.golden?.n > 0 && ["Base model, golden set", percent(found.base.golden.base, 1)],
      found.robustness?.n > 0 && ["Lost on typing errors", percent(found.robustness.candidate.drop, 1)],
      found.judge?.n > 0 && ["Judge", `${found.judge.wins} won, ${found.judge.losses} lost, ${found.judge.ties} tied`],
    ].filter(Boolean)));
}

function compared(title, champion, candidate, names = ["Champion", "Candidate"]) {
  const known = Number.isFinite(champion) && Number.isFinite(candidate);
  const delta = candidate - champion;
  const kind = !known || Math.abs(delta) < NOISE ? "muted" : delta > 0 ? "up" : "down";
  return h("li", {},
    h("div", { class: "row" }, h("span", {}, title),
      h("span", { class: kind }, known ? points(delta) : "no figures")),
    h("div", { class: "bars" },
      h("span", {}, names[0]), meter(champion, `${names[0]} ${percent(champion, 1)}`, "plain"), h("span", {}, percent(champion, 1)),
      h("span", {}, names[1]), meter(candidate, `${names[1]} ${percent(candidate, 1)}`), h("span", {}, percent(candidate, 1))));
}

function shadowing(shadow) {
  const [kind, label] = DECISIONS[String(shadow.decision).toLowerCase()] ?? ["", String(shadow.decision ?? "waiting")];
  // Evidence multiplies with every pair, so its way to the threshold is shown on a logarithmic scale.
  const share = shadow.evidence > 1 && shadow.needed > 1 ? Math.log(shadow.evidence) / Math.log(shadow.needed) : 0;
  return block("Shadow on live traffic",
    h("div", { class: "row" }, h("span", {}, plural(shadow.pairs ?? 0, "labelled pair")), h("span", { class: `pill ${kind}` }, label)),
    shadow.pairs > 0 && h("ul", { class: "compared" }, compared("Mean score", shadow.champion_mean, shadow.candidate_mean)),
    h("div", { class: "row" }, h("span", {}, "Evidence that it is better"), h("span", {}, `${number(shadow.evidence)} of ${number(shadow.needed)}`)),
    meter(share, `Evidence ${number(shadow.evidence)} of ${number(shadow.needed)} needed`, share >= 1 ? "good" : ""),
    h("ul", { class: "reasons" }, (shadow.reasons ?? []).map((reason) => h("li", {}, emphasised(reason)))));
}

function watching(watch) {
  return block("Watching the new champion",
    h("div", { class: "row" }, h("span", {}, plural(watch.labelled ?? 0, "labelled request")), h("span", {}, "since the promotion")),
    h("ul", { class: "compared" }, compared("Quality", watch.baseline, watch.quality, ["Before", "Now"])));
}
