// Builds the page from data. Data only ever becomes text or an attribute's value, never markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
export const byId = (id) => document.getElementById(id);

export const percent = (value, digits = 0) =>
  value === null || value === undefined ? "–" : `${(value * 100).toFixed(digits)}%`;
export const points = (value) => `${value >= 0 ? "+" : "−"}${Math.abs(value * 100).toFixed(1)} pts`;
export const number = (value) =>
  typeof value !== "number" ? "–" : Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
export const words = (name) => String(name).replaceAll(/[_.]/g, " ");

export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60 ? `${s % 60} s` : ""}`.trim();
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return plural(Math.floor(s / 86400), "day");
}

let ahead = 0; // seconds by which the server's clock is ahead of this browser's
export const setServerTime = (now) => { ahead = now - Date.now() / 1000; };
export const serverTime = () => Date.now() / 1000 + ahead;

export const clock = (at, seconds = false) =>
  new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: seconds ? "2-digit" : undefined, hourCycle: "h23" });

export function ago(at) {
  const stamp = new Date(at * 1000);
  return h("time", { datetime: stamp.toISOString(), title: stamp.toLocaleString(), "data-at": at }, agoText(at));
}

function agoText(at) {
  const s = serverTime() - at;
  if (s < 2) return "just now";
  return `${s < 60 || s >= 3600 ? span(s) : `${Math.floor(s / 60)} min`} ago`;
}

export function refreshTimes() {
  for (const element of document.querySelectorAll("time[data-at]")) {
    element.textContent = agoText(Number(element.dataset.at));
  }
}

const drawn = new WeakMap();

// Replaces a section's content where what it shows has changed, and gives the focus back to the same control.
export function draw(section, shown, build) {
  const signature = JSON.stringify(shown);
  if (drawn.get(section) === signature) return;
  drawn.set(section, signature);
  const focused = section.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  section.replaceChildren(...[build()].flat().filter(Boolean));
  if (focused) section.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
}

// A reason's *words* stand out.
export const emphasised = (text) => text.split(/\*([^*]+)\*/).map((part, i) => (i % 2 ? h("em", {}, part) : part));
