// What goes on: money, requests, tokens, what was saved, what is wrong. Looks again every few seconds.
import { html } from "../lib/dom.js";
import { useData } from "../lib/api.js";
import { Columns, FAILED, Legend } from "../lib/chart.js";
import * as format from "../lib/format.js";
import { span, RANGES } from "../lib/ranges.js";
import { link, setParams } from "../lib/route.js";
import { A, Badge, Card, Choice, Empty, Loaded, Meter, Page, Stat, Table } from "../lib/widgets.js";
import { LimitBar } from "../lib/limit.js";

const EVERY_MS = 4000;

export default function Overview({ route }) {
  const range = route.params.get("range") || "24h", time = span(range);
  const within = { since: time.since, until: time.until };
  const total = useData("api/usage", { ...within, by: "cache" }, { every: EVERY_MS });
  const course = useData("api/usage", { ...within, by: time.bucket }, { every: EVERY_MS });
  return html`<${Page} title="Overview" actions=${html`<span class=${total.error ? "live off" : "live"}>${total.error ? "Not live" : "Live"}</span>
      <${Choice} label="Time" options=${RANGES.slice(0, 4)} value=${range} onChange=${(value) => setParams({ range: value })} />`}>
    <${Loaded} state=${total}>${(data) => html`<${Figures} rows=${data.rows} />`}</${Loaded}>
    <div class="grid-2">
      <${Card} title="Spend"><${Loaded} state=${course}>${(data) => html`<${Course} rows=${data.rows} time=${time} label="Spend"
        series=${["Spend"]} values=${(row) => [Number(row.cost_usd)]} show=${format.money} />`}</${Loaded}></${Card}>
      <${Card} title="Requests, calls from code included"><${Loaded} state=${course}>${(data) => html`<${Course} rows=${data.rows} time=${time} label="Ledger entries"
        series=${["Successful", FAILED]} values=${(row) => [row.entries - row.failed, row.failed]} show=${format.short} />
        <${Legend} series=${["Successful", FAILED]} />`}</${Loaded}></${Card}>
    </div>
    <div class="grid-3">
      <${Top} by="key" title="Keys" within=${within} range=${range} />
      <${Top} by="model" title="Models" above="provider" between="/" within=${within} range=${range} />
      <${Top} by="tool" title="Tools" above="server" between="." where="kind=tool" within=${within} range=${range} />
    </div>
    <div class="grid-2"><${Limits} /><${Servers} /></div>
  </${Page}>`;
}

const add = (rows, name) => rows.reduce((sum, row) => sum + Number(row[name] || 0), 0);

function Figures({ rows }) {
  const sum = (name) => add(rows, name);
  const saved = sum("definition_tokens_saved") + sum("result_tokens_saved"), answered = sum("model_tokens_saved"), tokens = sum("input_tokens") + sum("output_tokens");
  const hits = add(rows.filter((row) => row.cache === "exact" || row.cache === "semantic"), "entries");
  const failed = sum("failed"), entries = sum("entries");
  return html`<div class="stats">
    <${Stat} label="Spend" value=${format.money(sum("cost_usd"))} hint=${sum("unpriced") ? `${format.number(sum("unpriced"))} without a price` : "all priced"} />
    <${Stat} label="Requests" value=${format.short(sum("requests"))} exact=${format.number(sum("requests"))}
      hint=${`${format.number(sum("executions"))} code runs, ${format.number(sum("tool_calls"))} tool calls`} />
    <${Stat} label="Model tokens" value=${format.short(tokens)} exact=${format.number(tokens)}
      hint=${`${format.short(sum("input_tokens"))} in, ${format.short(sum("output_tokens"))} out`} />
    <${Stat} label="Tokens saved" value=${format.short(saved + answered)} exact=${format.number(saved + answered)}
      hint=${answered ? `${format.short(saved)} by Code Mode, ${format.short(answered)} by the cache` : "by Code Mode, estimated"} />
    <${Stat} label="Money saved" value=${format.money(sum("cost_saved_usd"))} hint="by the cache" />
    <${Stat} label="Cache hits" value=${format.short(hits)} exact=${format.number(hits)} hint=${`${format.percent(entries ? hits / entries : 0)} of all`} />
    <${Stat} label="Errors" value=${format.percent(entries ? failed / entries : 0)} tone=${failed / entries > 0.05 ? "bad" : ""} hint=${`${format.number(failed)} failed`} />
  </div>`;
}

function Course({ rows, time, label, series, values, show }) {
  const known = new Map(rows.map((row) => [row[time.bucket], row]));
  const points = time.buckets.map((name) => ({
    label: format.bucket(name, time.bucket), long: format.bucket(name, time.bucket, true),
    values: known.has(name) ? values(known.get(name)) : series.map(() => 0),
  }));
  return html`<${Columns} points=${points} series=${series} show=${show} label=${label} />`;
}

/** Those that cost most. `above`: the dimension that completes the name, with what is put in between. */
function Top({ by, title, above, between, where, within, range }) {
  const state = useData("api/usage", { ...within, by: above ? `${above},${by}` : by, where, order: "cost", limit: 12 }, { every: 5 * EVERY_MS });
  const isNamed = (row) => row[by] && (!above || row[above]);
  const columns = [
    { name: by, label: title.slice(0, -1), render: (row) => html`<${A} to="usage" params=${{ range, by, where: `${by}=${row[by]}` }}>${
      above ? row[above] + between + row[by] : row[by]}</${A}>` },
    { name: "entries", label: "Calls", number: true, render: (row) => format.short(row.entries) },
    { name: "cost_usd", label: "Cost", number: true, render: (row) => format.money(row.cost_usd) },
  ];
  return html`<${Card} title=${title} flush actions=${html`<${A} to="usage" params=${{ range, by }}>All</${A}>`}><${Loaded} state=${state}>${(data) => html`<${Table}
    label=${`${title} by cost`} columns=${columns} rows=${data.rows.filter(isNamed).slice(0, 6)} keyOf=${(row) => `${row[above]} ${row[by]}`} empty="No usage in this time." />`}</${Loaded}></${Card}>`;
}

const KINDS = ["budget", "rate_limit", "customer", "team", "key"];

function Limits() {
  const states = KINDS.map((kind) => useData("api/limits", { kind, limit: 50 }, { every: 5 * EVERY_MS }));
  const rows = states.flatMap((state) => state.data ? state.data.limits : []).filter((row) => row.limit > 0)
    .map((row) => ({ ...row, share: (Number(row.spent) + Number(row.reserved)) / Number(row.limit) }))
    .sort((a, b) => b.share - a.share).slice(0, 6);
  return html`<${Card} title="Fullest limits" actions=${html`<a href=${link("limits")}>All</a>`}>${rows.length
    ? html`<div class="stack">${rows.map((row) => html`<${LimitBar} row=${row} />`)}</div>`
    : html`<${Empty}>${states.some((state) => state.loading) ? "Loading …" : "No budgets or rate limits."}</${Empty}>`}</${Card}>`;
}

function Servers() {
  const state = useData("api/upstreams", {}, { every: 2 * EVERY_MS });
  return html`<${Card} title="Servers" flush actions=${html`<a href=${link("servers")}>All</a>`}><${Loaded} state=${state}>${(data) => {
    const rows = [...data.upstreams].sort((a, b) => (a.state === "ready") - (b.state === "ready")).slice(0, 6);
    return html`<${Table} label="Servers" rows=${rows} keyOf=${(row) => row.name} empty="No servers are configured." columns=${[
      { name: "name", label: "Server", render: (row) => html`<${A} to=${["servers", row.name]}>${row.name}</${A}>` },
      { name: "state", label: "State", render: (row) => html`<${Badge} text=${row.state} title=${row.reason} />` },
      { name: "tools", label: "Tools", number: true, render: (row) => format.number(row.tools) },
    ]} />`;
  }}</${Loaded}></${Card}>`;
}
