// One limit: how much of it is used, when it resets, whether it will last.
import { html } from "./dom.js";
import * as format from "./format.js";
import { Meter, Time } from "./widgets.js";

/** What a limit is of: `budget everyone · user ada`. */
export function nameOf(row) {
  const of = row.kind === "budget" || row.kind === "rate_limit" ? row.of : `${row.kind} ${row.of}`;
  return row.subject ? `${of} · ${row.subject}` : of;
}

export function shareOf(row) {
  return Number(row.limit) > 0 ? (Number(row.spent) + Number(row.reserved)) / Number(row.limit) : Number(row.spent) + Number(row.reserved) > 0 ? 1 : 0;
}

export function unitOf(row) {
  const name = row.measure === "concurrency" ? "at once" : row.measure === "cost" ? "" : row.measure.replaceAll("_", " ");
  return `${name}${row.window ? ` per ${format.period(row.window)}` : ""}`.trim();
}

/** In words: whether it lasts until it resets. */
export function Outlook({ row }) {
  if (Number(row.left) <= 0 && row.measure !== "concurrency") return html`<span class="badge bad">used up</span> <span class="muted">frees <${Time} at=${row.resets_at} /></span>`;
  if (row.runs_out_at) return html`<span class="badge warn">runs out</span> <${Time} at=${row.runs_out_at} />`;
  if (row.forecast) return html`<span class="muted">at this pace ${format.measure(row.measure, row.forecast)} per window</span>`;
  return row.resets_at ? html`<span class="muted">frees <${Time} at=${row.resets_at} /></span>` : html`<span class="muted">–</span>`;
}

export function LimitBar({ row }) {
  return html`<div><div class="card-head" style=${{ marginBottom: "4px", gap: "8px" }}><span class="strong">${nameOf(row)}</span>
    <span>${format.measure(row.measure, Number(row.spent) + Number(row.reserved))} of ${format.measure(row.measure, row.limit)} <span class="muted">${unitOf(row)}</span></span></div>
    <${Meter} share=${shareOf(row)} label=${`Used of ${nameOf(row)}`} /></div>`;
}
