// What a person confirms before it is done. A refusal stays in the dialog, in the server's words.

import { ApiError, aliasPath, forgetKey, get, hasKey, keepKey, post } from "./api.js";
import { byId, h } from "./dom.js";

let hiding;

export function toast(message) {
  const line = byId("toast");
  line.textContent = message;
  line.classList.add("shown");
  clearTimeout(hiding);
  hiding = setTimeout(() => line.classList.remove("shown"), 6000);
}

const field = (label, control) => h("label", {}, label, control);
const reason = (example) => field("Reason, for the audit log", h("textarea", { name: "reason", required: true, maxlength: 500, placeholder: example }));

// `run(form data)` returns what to tell once it is done.
function ask({ title, text, fields = [], confirm, danger = false, run, done }) {
  const dialog = byId("ask");
  const fault = h("p", { class: "fault", role: "alert", hidden: true });
  const button = h("button", { class: danger ? "danger" : "main", type: "submit" }, confirm);
  const form = h("form", {}, h("h2", { id: "ask-title" }, title), h("p", {}, text), fields, fault,
    h("div", { class: "actions" }, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), button));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    fault.hidden = true;
    try {
      const told = await run(new FormData(form));
      dialog.close();
      toast(told);
      done();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      fault.textContent = error.message;
      fault.hidden = false;
    } finally {
      button.disabled = false;
    }
  });
  dialog.replaceChildren(form);
  dialog.showModal();
}

// `state` looks up what holds at the moment of the click; a section may have been drawn earlier.
export function confirmations(state) {
  const { done } = state;
  return {
    promote({ name }, wanted) {
      const alias = state.alias(name);
      const others = state.adapters(name).filter((adapter) => adapter.name !== alias.champion);
      const options = others.map((adapter) =>
        h("option", { value: adapter.name, disabled: !adapter.resident, selected: adapter.name === wanted },
          adapter.name, adapter.name === alias.candidate ? " (candidate)" : adapter.name === alias.previous ? " (previous)" : "", adapter.resident ? "" : " – not loaded"));
      if (alias.champion !== "base") options.push(h("option", { value: "base" }, "base (no adapter)"));
      if (!options.some((option) => !option.disabled)) {
        toast(`No other adapter of ${alias.name} is loaded on the engines; load one under Adapters first.`);
        return;
      }
      ask({
        title: `Promote an adapter of ${alias.name}`,
        text: `${alias.name} serves ${alias.champion} now. It will serve the chosen adapter at once, on every engine; no request is dropped.${alias.cycle?.is_open ? " The running cycle follows if it proved this adapter, and ends otherwise." : ""}`,
        fields: [field("Adapter", h("select", { name: "adapter", required: true }, options)), reason("Better on the new returns policy")],
        confirm: "Promote", done,
        run: async (data) => {
          const now = await post(aliasPath(alias.name, "promote"), { adapter: data.get("adapter"), reason: data.get("reason") });
          return `${now.name} now serves ${now.champion}.`;
        },
      });
    },
    rollback({ name }) {
      const alias = state.alias(name);
      const promoted = !alias.cycle?.is_open || alias.cycle.state === "watching" || alias.champion === alias.cycle.candidate;
      ask({
        title: promoted ? `Roll ${alias.name} back` : `End the cycle of ${alias.name}`,
        text: promoted && alias.previous ? `${alias.name} serves ${alias.champion} now and will serve ${alias.previous} again, at once, on every engine.`
          : `The running cycle ends as rolled back; ${alias.name} keeps serving ${alias.champion}.`,
        fields: [reason("Customers report wrong order numbers")], confirm: promoted ? "Roll back" : "End the cycle", danger: true, done,
        run: async (data) => {
          const now = await post(aliasPath(alias.name, "rollback"), { reason: data.get("reason") });
          return `${now.name} now serves ${now.champion}.`;
        },
      });
    },
    retrain(alias) {
      ask({
        title: `Retrain ${alias.name}`, text: "A cycle opens now: it trains an adapter on recent traffic and promotes it only if it proves better.",
        fields: [reason("New product line since Monday")], confirm: "Open a cycle", done,
        run: async (data) => `Cycle ${(await post(aliasPath(alias.name, "retrain"), { reason: data.get("reason") })).id} is open.`,
      });
    },
    approve({ name }) {
      const alias = state.alias(name);
      ask({
        title: "Approve this candidate", text: `${alias.candidate ?? "The candidate"} will replace ${alias.champion} once its evidence suffices.`,
        confirm: "Approve", done,
        run: async () => { await post(aliasPath(alias.name, "approve")); return "Approved."; },
      });
    },
    unlatch(alias) {
      ask({
        title: `Unlatch ${alias.name}`, text: "The count of failures starts again, and drift may open cycles.", confirm: "Unlatch", done,
        run: async () => { await post(aliasPath(alias.name, "unlatch")); return `${alias.name} may open cycles again.`; },
      });
    },
    load(alias, adapter) {
      ask({
        title: "Load this adapter", text: `Every engine loads ${adapter.name} as the candidate of ${alias.name}. No client meets it; once it is loaded you can promote it.`,
        confirm: "Load", done,
        run: async () => { await post(aliasPath(alias.name, "candidate"), { adapter: adapter.name }); return "The engines load it; this takes a few seconds."; },
      });
    },
    upload(alias) {
      ask({
        title: `Add an adapter for ${alias.name}`, text: "A PEFT LoRA for this base model: its two files, checked before anything is kept.",
        fields: [field("adapter_config.json and adapter_model.safetensors", h("input", { type: "file", name: "files", multiple: true, required: true, accept: ".json,.safetensors" }))],
        confirm: "Add", done,
        run: async (data) => {
          data.set("alias", alias.name);
          return `${(await post("adapters", data)).name} is added; load it, then promote it.`;
        },
      });
    },
    newAlias() {
      ask({
        title: "New alias", text: "It serves the base model until an adapter is promoted.",
        fields: [field("Name", h("input", { name: "name", required: true, maxlength: 63, autocomplete: "off", placeholder: "support" }))],
        confirm: "Create", done,
        run: async (data) => `${(await post("aliases", { name: data.get("name") })).name} is ready to serve.`,
      });
    },
    report: (check) => openInTab(`drift/${encodeURIComponent(check)}/report-link`),
    card: (adapter) => openInTab(`adapters/${encodeURIComponent(adapter)}/card-link`),
  };

  async function openInTab(link) {
    const tab = window.open("about:blank");
    try {
      const { href } = await get(link);
      tab.opener = null;
      tab.location.replace(new URL(href, document.baseURI));
    } catch (error) {
      tab?.close();
      toast(error.message);
    }
  }
}

export function askKey(message, done) {
  const dialog = byId("key");
  if (dialog.open) return;
  const form = h("form", {}, h("h2", { id: "key-title" }, "This server asks for a key"),
    h("p", {}, "Paste a key with the scope ", h("code", {}, "admin"), ". It stays in this tab until you close it. ", h("code", {}, "trimtab keys create --scope admin"), " makes one."),
    hasKey() && h("p", { class: "fault", role: "alert" }, message),
    field("Key", h("input", { type: "password", name: "key", required: true, autocomplete: "off", placeholder: "tt_…" })),
    h("div", { class: "actions" }, h("button", { class: "main", type: "submit" }, "Open the console")));
  forgetKey();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    keepKey(new FormData(form).get("key").trim());
    dialog.close();
  });
  dialog.replaceChildren(form);
  dialog.addEventListener("close", done, { once: true });
  dialog.showModal();
}
