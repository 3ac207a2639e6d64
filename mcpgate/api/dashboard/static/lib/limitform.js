// The part of forms that is about budgets and rate limits, and the values of those forms.
import { html } from "./dom.js";
import { Check, Input } from "./widgets.js";

/** Words separated by blanks or commas. */
export const words = (text) => text.split(/[\s,]+/).filter(Boolean);
export const joined = (list) => (list || []).join(" ");
const optional = (text) => (text === "" || text === null ? null : Number(text));

/** Another limit for a while, as text of a form: `override` of a budget. */
export function overrideOf(budget) {
  const { limit_usd = "", until = "" } = budget.override || {}, at = until && new Date(until);
  return { override_usd: limit_usd, override_until: at ? new Date(at - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16) : "" };
}

export function overrideFrom(form) {
  if (form.override_usd === "" && form.override_until === "") return null;
  if (form.override_usd === "" || form.override_until === "") throw new Error("Another limit for a while needs both an amount and a time");
  return { limit_usd: String(form.override_usd), until: new Date(form.override_until).toISOString() };
}

export function OverrideFields({ form, set }) {
  return html`<${Input} label="For a while" hint="Another amount, higher or lower" type="number" min="0" step="any" value=${form.override_usd} onInput=${(override_usd) => set({ override_usd })} />
    <${Input} label="until" hint="Then the usual limit holds again" type="datetime-local" value=${form.override_until} onInput=${(override_until) => set({ override_until })} />`;
}

/** The first budget and rate limits of a scope, as text of the form. A scope with more keeps the others. */
export function limitsOf(scope) {
  const budget = (scope.budget || [])[0] || {}, limits = scope.rate_limits || [];
  const windowed = limits.find((one) => one.concurrency === null && one.window) || {};
  const parallel = limits.find((one) => one.concurrency !== null && one.concurrency !== undefined) || {};
  return {
    limit_usd: budget.limit_usd ?? "", period: budget.period || "", calendar: Boolean(budget.calendar), timezone: budget.timezone || "",
    soft_limit_usd: budget.soft_limit_usd ?? "", requests: windowed.requests ?? "", tokens: windowed.tokens ?? "", window: windowed.window || "",
    concurrency: parallel.concurrency ?? "", ...overrideOf(budget),
  };
}

/** `budget` and `rate_limits` of a scope from the form, with what the form does not show. */
export function limitsFrom(form, scope = {}) {
  const before = limitsOf(scope), budgets = scope.budget || [], limits = scope.rate_limits || [];
  const first = budgets[0] || {}, override = overrideFrom(form);
  if (override && form.limit_usd === "") throw new Error("Another limit for a while needs a usual one");
  const budget = form.limit_usd === "" ? budgets.slice(1) : [{
    ...first, limit_usd: String(form.limit_usd), period: form.period || null, calendar: form.calendar,
    ...(form.timezone ? { timezone: form.timezone } : {}), soft_limit_usd: form.soft_limit_usd === "" ? null : String(form.soft_limit_usd),
    override,
  }, ...budgets.slice(1)];
  const windowed = limits.find((one) => one.concurrency === null && one.window), parallel = limits.find((one) => one.concurrency != null);
  const rest = limits.filter((one) => one !== windowed && one !== parallel), rates = [];
  if (form.requests !== "" || form.tokens !== "") {
    rates.push({ ...(windowed || {}), requests: optional(form.requests), tokens: optional(form.tokens), window: form.window || "1m" });
  }
  if (form.concurrency !== "") rates.push({ ...(parallel || {}), concurrency: optional(form.concurrency) });
  return before === form ? {} : { budget, rate_limits: [...rates, ...rest] };
}

export function LimitFields({ form, set }) {
  return html`<fieldset><legend>Budget</legend><div class="form">
      <${Input} label="US dollars" type="number" min="0" step="any" value=${form.limit_usd} onInput=${(limit_usd) => set({ limit_usd })} />
      <${Input} label="per" hint="1d, 1w, 1M …; empty: it never resets" value=${form.period} onInput=${(period) => set({ period })} />
      <${Input} label="Warn above" type="number" min="0" step="any" value=${form.soft_limit_usd} onInput=${(soft_limit_usd) => set({ soft_limit_usd })} />
      <${Input} label="Time zone" hint="of calendar periods, such as Europe/Berlin" value=${form.timezone} onInput=${(timezone) => set({ timezone })} />
      <${Check} label="Calendar periods" hint="Resets at the turn of the day, week or month" value=${form.calendar} onInput=${(calendar) => set({ calendar })} />
      <${OverrideFields} form=${form} set=${set} />
    </div></fieldset>
    <fieldset><legend>Rate limits</legend><div class="form">
      <${Input} label="Requests" type="number" min="0" value=${form.requests} onInput=${(requests) => set({ requests })} />
      <${Input} label="Model tokens" type="number" min="0" value=${form.tokens} onInput=${(tokens) => set({ tokens })} />
      <${Input} label="in" hint="1m, 1h …" value=${form.window} onInput=${(window) => set({ window })} />
      <${Input} label="At once" type="number" min="0" value=${form.concurrency} onInput=${(concurrency) => set({ concurrency })} />
    </div></fieldset>`;
}
