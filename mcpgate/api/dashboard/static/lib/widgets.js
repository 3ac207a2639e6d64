// What pages are made of: cards, tables, forms, dialogs, states of loading and failing.
import { html, useEffect, useId, useRef, useState } from "./dom.js";
import * as format from "./format.js";
import { link } from "./route.js";

const ICONS = {
  overview: "M3 13h8V3H3zm0 8h8v-6H3zm10 0h8V11h-8zm0-18v6h8V3z",
  usage: "M4 20h16v-2H4zM6 16h3V9H6zm5 0h3V4h-3zm5 0h3v-5h-3z",
  keys: "M14 3a7 7 0 0 0-6.7 9L2 17.300V22h5v-3h3v-3h2l.5-.5A7 7 0 1 0 14 3m2.500 7A2.500 2.500 0 1 1 19 7.500 2.500 2.500 0 0 1 16.500 10",
  limits: "M12 3a10 10 0 0 0-8.600 15h17.200A10 10 0 0 0 12 3m0 13a2 2 0 0 1-1.400-3.400L17 8l-3.600 6.600A2 2 0 0 1 12 16",
  servers: "M4 4h16v6H4zm0 10h16v6H4zm3-8v2h2V6zm0 10v2h2v-2z",
  executions: "M8.600 7 3.600 12l5 5L7.200 18.400.8 12l6.400-6.400zm6.800 0 5 5-5 5 1.400 1.400L23.200 12l-6.400-6.400z",
  requests: "M4 5h16v2H4zm0 6h16v2H4zm0 6h10v2H4z",
  models: "M12 2 3 7v10l9 5 9-5V7zm0 2.300L18.500 8 12 11.600 5.500 8zM5 9.700l6 3.400v6.200l-6-3.300zm14 0v6.300l-6 3.300v-6.200z",
  cache: "M12 3c-4.400 0-8 1.300-8 3v12c0 1.700 3.600 3 8 3s8-1.300 8-3V6c0-1.700-3.600-3-8-3m0 2c3.500 0 5.700.8 6 1-.3.200-2.500 1-6 1s-5.700-.8-6-1c.3-.2 2.500-1 6-1M6 18v-3.300c1.500.6 3.600 1 6 1s4.500-.4 6-1V18c-.3.200-2.500 1-6 1s-5.700-.8-6-1m0-6V8.500c1.500.6 3.600 1 6 1s4.500-.4 6-1V12c-.3.200-2.500 1-6 1s-5.700-.8-6-1",
  alerts: "M12 22a2 2 0 0 0 2-2h-4a2 2 0 0 0 2 2m6-6V11c0-3-1.600-5.600-4.500-6.300V4a1.500 1.500 0 0 0-3 0v.700C7.600 5.400 6 7.900 6 11v5l-2 2v1h16v-1z",
  changes: "M13 3a9 9 0 0 0-9 9H1l4 4 4-4H6a7 7 0 1 1 2 4.900l-1.400 1.400A9 9 0 1 0 13 3m-1 5v5l4.300 2.500.7-1.200-3.500-2.100V8z",
  try: "M7 4v16l13-8z",
};

export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${ICONS[name] || ""} /></svg>`;
}

export function Page({ title, about, actions, children }) {
  useEffect(() => { document.title = `${title} · mcpgate`; }, [title]);
  return html`<header class="page-head">
      <div><h1 tabindex="-1" id="title">${title}</h1>${about && html`<p class="muted">${about}</p>`}</div>
      ${actions && html`<div class="actions">${actions}</div>`}
    </header>${children}`;
}

export function Card({ title, actions, children, flush = false, label }) {
  return html`<section class=${`card${flush ? " flush" : ""}`} aria-label=${label || title}>
    ${title && html`<div class="card-head"><h2>${title}</h2>${actions && html`<div class="actions">${actions}</div>`}</div>`}
    ${children}
  </section>`;
}

export function Stat({ label, value, exact, hint, tone }) {
  return html`<div class="stat">
    <div class="stat-label">${label}</div>
    <div class=${`stat-value${tone ? ` ${tone}` : ""}`} title=${exact}>${value}</div>
    ${hint && html`<div class="stat-hint">${hint}</div>`}
  </div>`;
}

const ticking = new Set();
setInterval(() => ticking.forEach((tick) => tick()), 10000);

/** A time from now, which stays true; the exact one is its title. */
export function Time({ at }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const again = () => tick((count) => count + 1);
    ticking.add(again);
    return () => ticking.delete(again);
  }, []);
  if (!at) return html`<span class="muted">–</span>`;
  return html`<time datetime=${format.moment(at).toISOString()} title=${format.exact(at)}>${format.relative(at)}</time>`;
}

const TONES = { ok: "good", ready: "good", active: "good", warning: "warn", connecting: "warn", needs_sign_in: "warn",
  disabled: "quiet", expired: "quiet", revoked: "quiet", resting: "bad", failed: "bad" };

export function Badge({ text, tone, title }) {
  return html`<span class=${`badge ${tone || TONES[text] || "quiet"}`} title=${title}>${String(text).replaceAll("_", " ")}</span>`;
}

/** Something that went wrong, as the gateway says it. */
export function Problem({ error, retry }) {
  if (!error) return null;
  return html`<div class="problem" role="alert"><strong>${error.status === 403 ? "Not allowed" : "This did not work"}.</strong>
    ${" "}${error.message}${retry && html` <button class="link" onClick=${retry}>Try again</button>`}</div>`;
}

export function Empty({ children }) {
  return html`<div class="empty">${children}</div>`;
}

/** One of: failed, loading, or what `children` makes of the data. */
export function Loaded({ state, children }) {
  if (state.error && !state.data) return html`<${Problem} error=${state.error} retry=${state.reload} />`;
  if (!state.data) return html`<div class="loading" role="status">Loading …</div>`;
  return html`${state.error && html`<${Problem} error=${state.error} retry=${state.reload} />`}${children(state.data)}`;
}

/** A table. `columns`: {name, label, number, render, value, wide}. Sorted by `value` when a head is pressed. */
export function Table({ columns, rows, keyOf, label, onRow, rowLabel, empty = "Nothing yet." }) {
  const [order, setOrder] = useState(null);
  if (!rows.length) return html`<${Empty}>${empty}</${Empty}>`;
  const sorted = order ? [...rows].sort((a, b) => compare(order.column.value(a), order.column.value(b)) * order.way) : rows;
  const sort = (column) => setOrder((known) => known && known.column.name === column.name
    ? (known.way === (column.number ? 1 : -1) ? null : { column, way: -known.way })
    : { column, way: column.number ? -1 : 1 });
  const stateOf = (column) => order && order.column.name === column.name ? (order.way > 0 ? "ascending" : "descending") : "none";
  return html`<div class="table-box" tabindex="0" role="group" aria-label=${label}><table>
    <thead><tr>${columns.map((column) => html`<th scope="col" class=${column.number ? "num" : ""}
      aria-sort=${column.value ? stateOf(column) : undefined}>${column.value
        ? html`<button class="sort" onClick=${() => sort(column)}>${column.label}<span aria-hidden="true">${
            { ascending: " ↑", descending: " ↓", none: "" }[stateOf(column)]}</span></button>`
        : column.label || html`<span class="hidden">Actions</span>`}</th>`)}</tr></thead>
    <tbody>${sorted.map((row) => html`<tr key=${keyOf(row)} class=${onRow ? "pressable" : ""}
      onClick=${onRow && ((event) => { if (!event.target.closest("a,button,input")) onRow(row); })}>
      ${columns.map((column, index) => {
        const shown = column.render ? column.render(row) : row[column.name];
        const cell = onRow && index === 0
          ? html`<button class="link strong" aria-label=${rowLabel && rowLabel(row)} onClick=${() => onRow(row)}>${shown}</button>` : shown;
        return html`<td class=${`${column.number ? "num" : ""} ${column.wide ? "wide" : ""}`}>${cell}</td>`;
      })}</tr>`)}</tbody>
  </table></div>`;
}

function compare(a, b) {
  if (typeof a === "number" || typeof b === "number") return Number(a || 0) - Number(b || 0);
  return String(a ?? "").localeCompare(String(b ?? ""));
}

export function More({ pages }) {
  return html`<div class="more">${pages.next && html`<button class="button" disabled=${pages.loading} onClick=${pages.more}>Show more</button>`}
    ${pages.loading && html`<span class="muted" role="status">Loading …</span>`}</div>`;
}

/** How much of something is used. */
export function Meter({ share, label }) {
  const tone = share >= 1 ? "bad" : share >= 0.8 ? "warn" : "good";
  const width = Math.max(0, Math.min(1, share || 0)) * 100;
  return html`<div class="meter" role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax="100"
    aria-valuenow=${Math.round(width)}><div class=${`meter-fill ${tone}`} style=${{ width: `${width}%` }} /></div>`;
}

export function Tabs({ tabs, current, label }) {
  return html`<nav class="tabs" aria-label=${label}>${tabs.map(([name, text, target]) => html`<a href=${target}
    class=${name === current ? "tab current" : "tab"} aria-current=${name === current ? "page" : undefined}>${text}</a>`)}</nav>`;
}

/** A choice of few: one is pressed. */
export function Choice({ options, value, onChange, label }) {
  return html`<div class="choice" role="group" aria-label=${label}>${options.map(([name, text]) => html`<button type="button"
    aria-pressed=${name === value ? "true" : "false"} onClick=${() => onChange(name)}>${text}</button>`)}</div>`;
}

export function Dialog({ title, onClose, children, wide }) {
  const box = useRef(null), id = useId();
  useEffect(() => {
    const before = document.activeElement;
    box.current.showModal();
    return () => { if (before && before.isConnected) before.focus(); };
  }, []);
  return html`<dialog ref=${box} class=${wide ? "wide" : ""} aria-labelledby=${id}
    onCancel=${(event) => { event.preventDefault(); onClose(); }} onClick=${(event) => { if (event.target === box.current) onClose(); }}>
    <div class="dialog-body"><div class="dialog-head"><h2 id=${id}>${title}</h2>
      <button type="button" class="icon-button" aria-label="Close" onClick=${onClose}>✕</button></div>${children}</div>
  </dialog>`;
}

/** A question before something that cannot be taken back. */
export function Confirm({ title, text, action, onYes, onClose }) {
  const [state, run] = useAction();
  return html`<${Dialog} title=${title} onClose=${onClose}><p>${text}</p><${Problem} error=${state.error} />
    <div class="form-end"><button type="button" class="button" onClick=${onClose}>Cancel</button>
    <button type="button" class="button danger" disabled=${state.busy} onClick=${() => run(onYes)}>${action}</button></div></${Dialog}>`;
}

/** Runs changes: [{busy, error}, run]. */
export function useAction() {
  const [state, setState] = useState({ busy: false, error: null });
  const alive = useRef(true);
  useEffect(() => () => { alive.current = false; }, []);
  const run = async (work) => {
    setState({ busy: true, error: null });
    try {
      await work();
      if (alive.current) setState({ busy: false, error: null });
    } catch (error) {
      if (alive.current) setState({ busy: false, error });
    }
  };
  return [state, run];
}

export function Field({ label, hint, children, wide }) {
  const id = useId();
  const control = typeof children === "function" ? children(id, hint ? `${id}-hint` : undefined) : children;
  return html`<div class=${wide ? "field wide" : "field"}><label for=${id}>${label}</label>${control}
    ${hint && html`<div class="hint" id=${`${id}-hint`}>${hint}</div>`}</div>`;
}

export function Input({ label, hint, wide, value, onInput, type = "text", ...more }) {
  return html`<${Field} label=${label} hint=${hint} wide=${wide}>${(id, about) => html`<input id=${id} type=${type} value=${value}
    aria-describedby=${about} autocomplete="off" spellcheck=${false} onInput=${(event) => onInput(event.target.value)} ...${more} />`}</${Field}>`;
}

export function Select({ label, hint, wide, value, onInput, options, ...more }) {
  return html`<${Field} label=${label} hint=${hint} wide=${wide}>${(id, about) => html`<select id=${id} value=${value}
    aria-describedby=${about} onChange=${(event) => onInput(event.target.value)} ...${more}>
    ${options.map(([name, text]) => html`<option value=${name} selected=${name === value}>${text}</option>`)}</select>`}</${Field}>`;
}

export function Text({ label, hint, value, onInput, rows = 4, code, ...more }) {
  return html`<${Field} label=${label} hint=${hint} wide>${(id, about) => html`<textarea id=${id} rows=${rows} class=${code ? "code" : ""}
    aria-describedby=${about} spellcheck=${false} value=${value} onInput=${(event) => onInput(event.target.value)} ...${more} />`}</${Field}>`;
}

export function Check({ label, value, onInput, hint }) {
  const id = useId();
  return html`<div class="field check"><input type="checkbox" id=${id} checked=${value} onChange=${(event) => onInput(event.target.checked)} />
    <label for=${id}>${label}</label>${hint && html`<div class="hint">${hint}</div>`}</div>`;
}

export function Code({ text, label }) {
  return html`<pre class="code" tabindex="0" role="region" aria-label=${label}><code>${text}</code></pre>`;
}

export function Copy({ text, label = "Copy" }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    try { await navigator.clipboard.writeText(text); setDone(true); setTimeout(() => setDone(false), 1500); } catch { setDone(false); }
  };
  return html`<button type="button" class="button" onClick=${copy}><span aria-live="polite">${done ? "Copied" : label}</span></button>`;
}

export function A({ to, params, children, ...more }) {
  return html`<a href=${link(to, params)} ...${more}>${children}</a>`;
}
