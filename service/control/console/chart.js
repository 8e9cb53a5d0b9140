// Served quality over time as one SVG line, with the moments that explain it.

import { clock, h, number, percent, plural, svg } from "./dom.js";

const HEIGHT = 200;
const EDGE = { left: 40, right: 14, top: 30, bottom: 24 };
const MARKS = {
  drifted: { label: "drift", symbol: "▲" },
  promoted: { label: "promoted", symbol: "●" },
  rolled_back: { label: "rolled back", symbol: "◆" },
};

export function qualityChart(points, marks, width) {
  const right = width - EDGE.right;
  const floor = HEIGHT - EDGE.bottom;
  const start = points[0].at;
  const end = Math.max(points.at(-1).at, start + 1);
  const x = (at) => EDGE.left + ((at - start) / (end - start)) * (right - EDGE.left);
  const y = (quality) => floor - quality * (floor - EDGE.top);
  const path = points.map((p, i) => `${i ? "L" : "M"}${x(p.at).toFixed(1)},${y(p.quality).toFixed(1)}`).join("");
  const last = points.at(-1);
  const within = marks.filter((mark) => mark.at >= start && mark.at <= end);
  const chart = svg(
    "svg",
    { class: "chart", viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img", "aria-label": told(points, within) },
    [0, 0.25, 0.5, 0.75, 1].map((share) => grid(share, y(share), right)),
    ticks(start, end, width).map((at) => timeLabel(at, x(at), floor, start, end)),
    svg("path", { class: "area", d: `${path}L${x(last.at).toFixed(1)},${floor}L${x(start).toFixed(1)},${floor}Z` }),
    flags(within, x, floor, right),
    svg("path", { class: "line", d: path }),
    svg("circle", { class: "dot", cx: x(last.at), cy: y(last.quality), r: 4 }),
  );
  return h("div", { class: "chart-box" }, withPointer(chart, points, x, y, width, floor));
}

function grid(share, y, right) {
  return svg("g", { class: "grid" },
    svg("line", { x1: EDGE.left, x2: right, y1: y, y2: y, class: share === 0 ? "axis" : null }),
    share === 0.25 || share === 0.75 ? null : svg("text", { x: EDGE.left - 8, y: y + 4, "text-anchor": "end" }, percent(share)));
}

function ticks(start, end, width) {
  const count = width > 560 ? 4 : 2;
  return Array.from({ length: count + 1 }, (_, i) => start + ((end - start) * i) / count);
}

function timeLabel(at, x, floor, start, end) {
  const anchor = at === start ? "start" : at === end ? "end" : "middle";
  return svg("text", { class: "tick", x, y: floor + 17, "text-anchor": anchor }, clock(at, end - start < 1200));
}

// Labels stand above the plot; one that would touch its neighbour goes a row higher, one without room is left to its symbol.
function flags(marks, x, floor, right) {
  const taken = [-Infinity, -Infinity];
  return marks.map((mark) => {
    const { label, symbol } = MARKS[mark.kind];
    const at = x(mark.at);
    const text = `${symbol} ${label}`;
    const half = text.length * 3.2;
    const middle = Math.min(Math.max(at, EDGE.left + half), right - half);
    const row = taken.findIndex((edge) => middle - half > edge + 6);
    if (row >= 0) taken[row] = middle + half;
    return svg("g", { class: `mark ${mark.kind}` },
      svg("line", { x1: at, x2: at, y1: EDGE.top - 4, y2: floor }),
      row < 0 ? null : svg("text", { x: middle, y: EDGE.top - 9 - row * 13, "text-anchor": "middle" }, text));
  });
}

function withPointer(chart, points, x, y, width, floor) {
  const line = svg("line", { y1: EDGE.top, y2: floor });
  const dot = svg("circle", { r: 4.5 });
  const text = svg("text", { y: EDGE.top + 14 });
  const pointer = svg("g", { class: "pointer", visibility: "hidden" }, line, dot, text);
  chart.append(pointer);
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * width;
    const near = points.reduce((best, p) => (Math.abs(x(p.at) - at) < Math.abs(x(best.at) - at) ? p : best));
    const px = x(near.at);
    line.setAttribute("x1", px);
    line.setAttribute("x2", px);
    dot.setAttribute("cx", px);
    dot.setAttribute("cy", y(near.quality));
    text.textContent = `${clock(near.at, true)}  ${percent(near.quality, 1)} of ${near.n}`;
    const left = px > width / 2;
    text.setAttribute("x", px + (left ? -8 : 8));
    text.setAttribute("y", near.quality > 0.8 ? floor - 10 : EDGE.top + 14);
    text.setAttribute("text-anchor", left ? "end" : "start");
    pointer.setAttribute("visibility", "visible");
  });
  chart.addEventListener("pointerleave", () => pointer.setAttribute("visibility", "hidden"));
  return chart;
}

function told(points, marks) {
  const lowest = points.reduce((low, p) => (p.quality < low.quality ? p : low));
  const moments = marks.map((mark) => `${MARKS[mark.kind].label} at ${clock(mark.at)}`);
  return [
    `Served quality from ${clock(points[0].at)} to ${clock(points.at(-1).at)} in ${plural(points.length, "point")}:`,
    `first ${percent(points[0].quality)}, lowest ${percent(lowest.quality)} at ${clock(lowest.at)}, now ${percent(points.at(-1).quality)}.`,
    ...(moments.length ? [`${moments.join(", ")}.`] : []),
  ].join(" ");
}

// Losses by step, [[step, loss], …] each: training as a line, held out as a dashed one, on one scale.
export function lossCurve(lines) {
  if (!lines.length) return null;
  const every = lines.flatMap(({ points }) => points);
  const [first, last] = [Math.min(...every.map(([step]) => step)), Math.max(...every.map(([step]) => step))];
  const [low, high] = [Math.min(...every.map(([, loss]) => loss)), Math.max(...every.map(([, loss]) => loss))];
  const at = ([step, loss]) => `${(((step - first) / (last - first || 1)) * 198 + 1).toFixed(1)},${(38 - ((loss - low) / (high - low || 1)) * 34).toFixed(1)}`;
  const label = lines.map(({ name, points }) => `${name} ${number(points[0][1])} → ${number(points.at(-1)[1])}`).join(", ");
  return h("figure", {},
    svg("svg", { class: "spark", viewBox: "0 0 200 42", preserveAspectRatio: "none", role: "img", "aria-label": `Loss: ${label}` },
      lines.map(({ name, points }) => svg("polyline", { class: name === "held out" ? "dashed" : null, points: points.map(at).join(" ") }))),
    h("figcaption", { class: "small muted" }, `Loss: ${label}`));
}
