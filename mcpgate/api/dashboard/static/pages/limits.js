// Budgets and limits: what is left, how long it will last, which are used up and by whom; and the rules themselves.
import { html, useState } from "../lib/dom.js";
import { part, post, put, remove, useData, usePages } from "../lib/api.js";
import * as format from "../lib/format.js";
import { Outlook, nameOf, shareOf, unitOf } from "../lib/limit.js";
import { OverrideFields, overrideFrom, overrideOf } from "../lib/limitform.js";
import { link, setParams } from "../lib/route.js";
import { Card, Check, Confirm, Dialog, Empty, Input, Loaded, Meter, More, Page, Problem, Select, Table, Tabs, Text, Time, useAction } from "../lib/widgets.js";

const KINDS = [["budget", "Budget rules"], ["rate_limit", "Rate-limit rules"], ["customer", "Customers"], ["team", "Teams"], ["user", "Users"], ["key", "Keys"]];
const RULES = { budgets: ["budgets", "budget", "Budget rules"], "rate-limits": ["rate_limits", "rate limit", "Rate-limit rules"] };

export default function Limits({ route, session }) {
  const part_ = route.parts[1] || "now";
  const tabs = [["now", "What is left", link("limits")], ...Object.entries(RULES).map(([name, [, , text]]) => [name, text, link(["limits", name])])];
  return html`<${Page} title="Budgets and limits"><${Tabs} tabs=${tabs} current=${part_} label="Limits and rules" />
    ${RULES[part_] ? html`<${Rules} key=${part_} name=${part_} session=${session} />` : html`<${Now} params=${route.params} session=${session} />`}</${Page}>`;
}

function Now({ params, session }) {
  const hit = params.get("hit") === "1";
  return html`<div class="bar"><${Check} label="Only what is used up or will be" value=${hit} onInput=${(value) => setParams({ hit: value ? "1" : "" }, true)} /></div>
    ${KINDS.map(([kind, title]) => html`<${Kind} kind=${kind} title=${title} hit=${hit} session=${session} />`)}`;
}

const PLURAL = { budget: "budgets", rate_limit: "rate-limits", customer: "customers", team: "teams", user: "users", key: "keys" };

function Kind({ kind, title, hit, session }) {
  const pages = usePages("api/limits", { kind, limit: 50 }, (data) => data.limits, (data) => (data.after ? { after: data.after } : null));
  const [reset, setReset] = useState(null);
  const rows = pages.rows.filter((row) => !hit || shareOf(row) >= 1 || row.runs_out_at).sort((a, b) => shareOf(b) - shareOf(a));
  if (!pages.error && !pages.next && !rows.length) return null;
  return html`<${Card} title=${title} flush><${Problem} error=${pages.error} retry=${pages.reload} />
    <${Table} label=${title} rows=${rows} keyOf=${(row) => `${row.of} ${row.measure} ${row.window} ${row.subject}`} empty=${pages.loading ? "Loading …" : "None."} columns=${[
      { name: "name", label: "Limit", value: nameOf, render: (row) => html`<span class="strong">${nameOf(row)}</span>` },
      { name: "used", label: "Used", wide: true, value: shareOf, render: (row) => html`<div class="share"><${Meter} share=${shareOf(row)} label=${`Used of ${nameOf(row)}`} /><span class="num">${format.percent(shareOf(row))}</span></div>` },
      { name: "left", label: "Left", number: true, value: (row) => Number(row.left), render: (row) => html`${format.measure(row.measure, row.left)} <span class="muted">of ${format.measure(row.measure, row.limit)}</span>` },
      { name: "unit", label: "per", render: (row) => html`<span class="muted">${unitOf(row)}</span>` },
      { name: "outlook", label: "Outlook", wide: true, value: (row) => row.runs_out_at || "9999", render: (row) => html`<${Outlook} row=${row} />` },
      { name: "resets", label: "Frees", value: (row) => row.resets_at, render: (row) => html`<${Time} at=${row.resets_at} />` },
      { name: "reset", label: "", number: true, render: (row) => !session.realm && Number(row.spent) > 0 && html`<button class="button small" aria-label=${`Reset ${nameOf(row)}`} onClick=${() => setReset(row)}>Reset</button>` },
    ]} /><${More} pages=${pages} />
    ${reset && html`<${Confirm} title=${`Reset ${nameOf(reset)}?`} text="What was spent of it no longer counts. The ledger keeps it." action="Reset" onClose=${() => setReset(null)}
      onYes=${async () => {
        await post(`api/${PLURAL[kind]}/${part(reset.of)}/reset`, reset.subject ? { subject: reset.subject } : {});
        setReset(null);
        pages.reload();
      }} />`}</${Card}>`;
}

function Rules({ name, session }) {
  const [field, kind, title] = RULES[name], state = useData(`api/${name}`), [form, setForm] = useState(null), [gone, setGone] = useState(null);
  const amount = (row) => (name === "budgets" ? [`${format.money(row.limit_usd)}${row.period ? ` a ${format.period(row.period)}` : " in all"}`,
    ...(row.override && new Date(row.override.until) > Date.now() ? [html`${format.money(row.override.limit_usd)} until <${Time} at=${row.override.until} />`] : [])]
    : ["requests", "tokens", "input_tokens", "output_tokens", "execution_seconds", "concurrency"].filter((one) => row[one] !== null)
      .map((one) => (one === "concurrency" ? `${row[one]} at once` : `${format.number(row[one])} ${one.replaceAll("_", " ")} a ${format.period(row.window)}`)));
  return html`<${Card} label=${title} flush><div class="card-head"><h2>${title}</h2>${!session.realm && html`<button class="button primary" onClick=${() => setForm({ row: null })}>New ${kind}</button>`}</div>
    <${Loaded} state=${state}>${(data) => html`<${Table} label=${title} rows=${data[field]} keyOf=${(row) => row.id} empty="There are none." columns=${[
      { name: "id", label: "Rule", value: (row) => row.id, render: (row) => html`<span class="strong">${row.id}</span>${row.declared && html`<div class="hint">in the file</div>`}` },
      { name: "limit", label: "Limit", render: (row) => amount(row).map((text) => html`<span class="tag">${text}</span>`) },
      { name: "per", label: "Each", value: (row) => row.per, render: (row) => (row.per === "shared" ? html`<span class="muted">all together</span>` : row.per) },
      { name: "when", label: "When", wide: true, render: (row) => Object.entries(row.when).map(([one, globs]) => html`<span class="tag">${one} = ${globs.join(" | ")}</span>`) },
      { name: "group", label: "Group", value: (row) => row.group, render: (row) => row.group || html`<span class="muted">–</span>` },
      { name: "actions", label: "", number: true, render: (row) => !row.declared && !session.realm && html`<button class="button small" onClick=${() => setForm({ row })}>Change</button>${" "}
        <button class="button small danger" onClick=${() => setGone(row)}>Remove</button>` },
    ]} />`}</${Loaded}>
    ${form && html`<${RuleForm} name=${name} kind=${kind} row=${form.row} onClose=${() => setForm(null)} onDone=${() => { setForm(null); state.reload(); }} />`}
    ${gone && html`<${Confirm} title=${`Remove ${gone.id}?`} text="It no longer limits anything." action="Remove" onClose=${() => setGone(null)}
      onYes=${async () => { await remove(`api/${name}/${part(gone.id)}`); setGone(null); state.reload(); }} />`}</${Card}>`;
}

const PERS = ["shared", "key", "user", "team", "customer"].map((name) => [name, name === "shared" ? "all together" : `each ${name}`]);
const text = (value) => (value === null || value === undefined ? "" : String(value));

function RuleForm({ name, kind, row, onDone, onClose }) {
  const known = row || {}, isBudget = name === "budgets";
  const [form, setForm] = useState(() => ({
    id: known.id || "", when: Object.entries(known.when || {}).map(([one, globs]) => `${one} = ${globs.join(" ")}`).join("\n"), group: known.group || "",
    per: known.per && known.per.startsWith("metadata.") ? "metadata" : known.per || "shared", metadata: known.per && known.per.startsWith("metadata.") ? known.per.slice(9) : "",
    limit_usd: text(known.limit_usd), period: text(known.period), calendar: Boolean(known.calendar), timezone: known.timezone || "UTC", soft_limit_usd: text(known.soft_limit_usd),
    requests: text(known.requests), tokens: text(known.tokens), execution_seconds: text(known.execution_seconds), concurrency: text(known.concurrency), window: text(known.window), fixed: Boolean(known.fixed), ...overrideOf(known),
  }));
  const [state, run] = useAction(), set = (changes) => setForm((before) => ({ ...before, ...changes }));
  const submit = (event) => {
    event.preventDefault();
    run(async () => { await put(`api/${name}/${part(form.id.trim())}`, ruleFrom(form, known, isBudget)); onDone(); });
  };
  const number = (field, label, hint) => html`<${Input} label=${label} hint=${hint} type="number" min="0" step="any" value=${form[field]} onInput=${(value) => set({ [field]: value })} />`;
  return html`<${Dialog} title=${row ? `Change ${row.id}` : `New ${kind}`} onClose=${onClose}><form class="form" onSubmit=${submit}>
    <${Input} label="Id" value=${form.id} onInput=${(id) => set({ id })} required disabled=${Boolean(row)} />
    <${Select} label="Who has it" value=${form.per} options=${[...PERS, ["metadata", "each value of a metadata name"]]} onInput=${(per) => set({ per })} />
    ${form.per === "metadata" && html`<${Input} label="Metadata name" value=${form.metadata} onInput=${(metadata) => set({ metadata })} required />`}
    <${Text} label="When" hint="One condition a line, such as team = ml or metadata.env = dev test-*. None: always." rows="3" value=${form.when} onInput=${(when) => set({ when })} />
    ${isBudget ? html`${number("limit_usd", "US dollars")}<${Input} label="per" hint="1d, 1w, 1M …; empty: it never resets" value=${form.period} onInput=${(period) => set({ period })} />
      ${number("soft_limit_usd", "Warn above")}<${Input} label="Time zone" value=${form.timezone} onInput=${(timezone) => set({ timezone })} />
      <${Check} label="Calendar periods" value=${form.calendar} onInput=${(calendar) => set({ calendar })} /><${OverrideFields} form=${form} set=${set} />`
    : html`${number("requests", "Requests")}${number("tokens", "Model tokens")}${number("execution_seconds", "Seconds of code")}${number("concurrency", "At once")}
      <${Input} label="in" hint="1m, 1h …" value=${form.window} onInput=${(window) => set({ window })} /><${Check} label="Windows of the clock" value=${form.fixed} onInput=${(fixed) => set({ fixed })} />`}
    <${Input} label="Group" hint="Of a group, only the first that matches limits" value=${form.group} onInput=${(group) => set({ group })} />
    <${Problem} error=${state.error} />
    <div class="form-end"><button type="button" class="button" onClick=${onClose}>Cancel</button><button class="button primary" disabled=${state.busy}>Save</button></div>
  </form></${Dialog}>`;
}

function ruleFrom(form, known, isBudget) {
  const when = {};
  for (const line of form.when.split("\n").map((one) => one.trim()).filter(Boolean)) {
    const at = line.indexOf("=");
    if (at < 1) throw new Error(`“${line}” is no condition; write NAME = VALUE, such as team = ml`);
    when[line.slice(0, at).trim()] = line.slice(at + 1).split(/[\s,]+/).filter(Boolean);
  }
  const count = (value) => (value === "" ? null : Number(value)), { declared: _declared, id: _id, ...rest } = known;
  const rule = { ...rest, when, per: form.per === "metadata" ? `metadata.${form.metadata.trim()}` : form.per, group: form.group.trim() || null };
  if (isBudget) {
    return { ...rule, limit_usd: form.limit_usd, period: form.period.trim() || null, calendar: form.calendar, timezone: form.timezone.trim() || "UTC",
      soft_limit_usd: form.soft_limit_usd === "" ? null : form.soft_limit_usd, override: overrideFrom(form) };
  }
  return { ...rule, requests: count(form.requests), tokens: count(form.tokens), execution_seconds: count(form.execution_seconds),
    concurrency: count(form.concurrency), window: form.window.trim() || null, fixed: form.fixed };
}
