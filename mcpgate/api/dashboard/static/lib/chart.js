// Columns over time, stacked by series, drawn as SVG. A table with the same numbers is next to every chart.
import { html, useLayoutEffect, useRef, useState } from "./dom.js";

const HEIGHT = 200, LEFT = 56, BOTTOM = 24, TOP = 10, RIGHT = 4;
export const SERIES = 8;
/** The name of the series that is drawn as trouble. */
export const FAILED = "Failed";

/** `points`: {label, long, values: [one of each series]}. `series`: their names. `show`: a value as text. */
export function Columns({ points, series, show, label, height = HEIGHT }) {
  const box = useRef(null), [width, setWidth] = useState(640), [at, setAt] = useState(null);
  useLayoutEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(Math.max(240, Math.floor(entry.contentRect.width))));
    watch.observe(box.current);
    return () => watch.disconnect();
  }, []);
  const totals = points.map((point) => point.values.reduce((sum, value) => sum + Math.max(0, value), 0));
  const ticks = scale(Math.max(0, ...totals)), most = ticks[ticks.length - 1] || 1;
  const inner = height - TOP - BOTTOM, step = (width - LEFT - RIGHT) / Math.max(1, points.length);
  const wide = Math.min(56, Math.max(1, step - Math.min(4, step * 0.25))), y = (value) => TOP + inner * (1 - value / most);
  const every = Math.max(1, Math.ceil(points.length / Math.max(2, Math.floor((width - LEFT) / 72))));
  const find = (event) => {
    const x = event.clientX - box.current.getBoundingClientRect().left - LEFT;
    const index = Math.floor(x / step);
    setAt(index >= 0 && index < points.length ? index : null);
  };
  const move = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    setAt((known) => Math.max(0, Math.min(points.length - 1, known === null ? (by > 0 ? 0 : points.length - 1) : known + by)));
  };
  return html`<div class="chart" ref=${box} onPointerMove=${find} onPointerLeave=${() => setAt(null)}>
    <svg width=${width} height=${height} role="img" aria-label=${`${label}. Left and right arrows read the columns.`} tabindex="0"
      onKeyDown=${move} onBlur=${() => setAt(null)}>
      ${ticks.map((tick) => html`<g><line class="grid" x1=${LEFT} x2=${width - RIGHT} y1=${y(tick)} y2=${y(tick)} />
        <text class="axis" x=${LEFT - 8} y=${y(tick) + 4} text-anchor="end">${show(tick, true)}</text></g>`)}
      ${at !== null && html`<rect class="cursor" x=${LEFT + at * step} y=${TOP} width=${step} height=${inner} />`}
      ${points.map((point, index) => column(point, LEFT + index * step + (step - wide) / 2, wide, y, series))}
      ${points.map((point, index) => index % every === 0 && html`<text class="axis" x=${LEFT + (index + 0.5) * step} y=${height - 6}
        text-anchor="middle">${point.label}</text>`)}
    </svg>
    ${at !== null && points[at] && html`<${Tip} point=${points[at]} series=${series} show=${show} total=${totals[at]}
      left=${LEFT + (at + 0.5) * step} width=${width} />`}
  </div>`;
}

function column(point, x, width, y, series) {
  let below = 0;
  return html`<g>${point.values.map((value, index) => {
    if (!(value > 0)) return null;
    const bottom = y(below);
    below += value;
    const top = y(below), height = Math.max(0.75, bottom - top);
    return html`<rect class=${`series ${colour(series[index], index)}`} x=${x} y=${bottom - height} width=${width} height=${height} />`;
  })}</g>`;
}

function Tip({ point, series, show, total, left, width }) {
  const side = left > width / 2 ? { right: `${width - left + 12}px` } : { left: `${left + 12}px` };
  const rows = series.map((name, index) => ({ name, index, value: point.values[index] })).filter((row) => row.value);
  return html`<div class="tip" style=${side} role="status"><div class="tip-title">${point.long || point.label}</div>
    ${series.length > 1 && rows.map((row) => html`<div class="tip-row"><span class=${`dot ${colour(row.name, row.index)}`} />
      <span class="tip-name">${row.name}</span><span>${show(row.value)}</span></div>`)}
    <div class="tip-row total"><span class="tip-name">${series.length > 1 ? "Total" : series[0]}</span><span>${show(total)}</span></div></div>`;
}

const colour = (name, index) => (name === FAILED ? "bad" : `s${index % SERIES}`);

export function Legend({ series }) {
  return html`<ul class="legend">${series.map((name, index) => html`<li><span class=${`dot ${colour(name, index)}`} />${name}</li>`)}</ul>`;
}

/** Three to five round numbers from 0 up to at least `most`. */
export function scale(most) {
  if (!(most > 0)) return [0, 1];
  const size = 10 ** Math.floor(Math.log10(most / 3)), step = [1, 2, 2.5, 5, 10].find((n) => (n * size) * 4 >= most) * size;
  const found = [];
  for (let n = 0; (n - 1) * step < most; n += 1) found.push(Number((n * step).toPrecision(12)));
  return found;
}
