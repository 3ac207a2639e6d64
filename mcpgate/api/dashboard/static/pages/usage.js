// Any dimension over time: what it cost, how often, how many tokens. All of it is in the address.
import { html, useState } from "../lib/dom.js";
import { address, useData } from "../lib/api.js";
import { Columns, Legend, SERIES } from "../lib/chart.js";
import * as format from "../lib/format.js";
import { RANGES, span } from "../lib/ranges.js";
import { setParams } from "../lib/route.js";
import { Card, Choice, Input, Loaded, Page, Select, Table } from "../lib/widgets.js";

const DIMENSIONS = ["key", "user", "team", "customer", "kind", "server", "tool", "provider", "model", "outcome", "cache"];
const MEASURES = [
  ["cost", "Cost", (row) => Number(row.cost_usd), format.money],
  ["requests", "Requests", (row) => row.requests, format.short],
  ["entries", "Calls, nested ones included", (row) => row.entries, format.short],
  ["tool_calls", "Tool calls", (row) => row.tool_calls, format.short],
  ["executions", "Code runs", (row) => row.executions, format.short],
  ["input_tokens", "Input tokens", (row) => row.input_tokens, format.short],
  ["output_tokens", "Output tokens", (row) => row.output_tokens, format.short],
  ["failed", "Errors", (row) => row.failed, format.short],
  ["result_tokens_saved", "Result tokens saved", (row) => row.result_tokens_saved, format.short],
  ["definition_tokens_saved", "Definition tokens saved", (row) => row.definition_tokens_saved, format.short],
];
const MOST = 200, STACKED = 50, MANY = 50_000;
const shownName = (value) => (value === null || value === "" ? "(none)" : String(value));

export default function Usage({ route, session }) {
  const params = route.params, range = params.get("range") || "7d", by = params.get("by") || "key";
  const measure = MEASURES.find(([name]) => name === params.get("measure")) || MEASURES[0];
  const time = span(range, params.get("from"), params.get("to")), where = params.get("where") || "";
  const within = { since: time.since, until: time.until, where };
  const names = [by, ...where.split(",").map((one) => one.split("=")[0])].filter((name) => name.startsWith("metadata."));
  const single = names.filter((name) => !session.summed_metadata.includes(name.slice(9))), asked = params.get("single") === "1";
  const size = useData(single.length && !asked ? "api/usage" : null, { since: time.since, until: time.until });
  const entries = size.data ? Number((size.data.rows[0] || {}).entries || 0) : 0, held = single.length > 0 && !asked && (size.loading || entries > MANY);
  const groups = useData(held ? null : "api/usage", { ...within, by, order: measure[0], limit: MOST });
  const few = groups.data && groups.data.rows.length <= STACKED && by !== time.bucket;
  const course = useData(groups.data && !held ? "api/usage" : null, { ...within, by: few ? `${time.bucket},${by}` : time.bucket });
  return html`<${Page} title="Usage" about="Everything that was asked and done, from the ledger." actions=${html`
      <a class="button" download="usage.csv" href=${address("api/usage", { ...within, by, format: "csv" }).href}>CSV</a>
      <${Choice} label="Time" options=${RANGES} value=${params.get("from") ? "" : range} onChange=${(value) => setParams({ range: value, from: "", to: "" })} />`}>
    <${Card} label="What is shown"><${Controls} params=${params} by=${by} measure=${measure} where=${where} /></${Card}>
    ${held ? size.loading ? html`<div class="loading" role="status">Loading …</div>` : html`<${Many} names=${single} entries=${entries} />` : html`
    <${Card} title=${`${measure[1]} by ${by.replace("metadata.", "")}, per ${time.bucket} (UTC)`}>
      <${Loaded} state=${course.error ? course : groups}>${(data) => html`<${Chart} top=${data.rows} rows=${course.data ? course.data.rows : []} by=${by}
        time=${time} measure=${measure} few=${few} />`}</${Loaded}></${Card}>
    <${Card} label="Groups" flush><${Loaded} state=${groups}>${(data) => html`<${Groups} rows=${data.rows} by=${by} measure=${measure} where=${where} />`}</${Loaded}></${Card}>`}
  </${Page}>`;
}

/** Instead of groups that take seconds to add up. */
function Many({ names, entries }) {
  return html`<${Card} label="Many entries"><p>${names.map((name) => name.slice(9)).join(", ")} ${names.length > 1 ? "are" : "is"} not in
    <code>governance.report_metadata</code>, so this has to be added up from ${format.number(entries)} single entries, which takes seconds.</p>
    <button class="button" onClick=${() => setParams({ single: "1" })}>Add up</button></${Card}>`;
}

function Controls({ params, by, measure, where }) {
  const own = by.startsWith("metadata."), [name, setName] = useState("team"), [value, setValue] = useState("");
  const [metadata, setMetadata] = useState(own ? by.slice(9) : "");
  const filters = where.split(",").filter(Boolean);
  const set = (list) => setParams({ where: list.join(",") });
  const addFilter = (event) => {
    event.preventDefault();
    const key = name === "metadata" ? `metadata.${metadata || "project_id"}` : name;
    set([...filters.filter((one) => !one.startsWith(`${key}=`)), `${key}=${value}`]);
    setValue("");
  };
  return html`<div class="stack"><div class="bar">
    <${Select} label="Group by" value=${own ? "metadata" : by} options=${[...DIMENSIONS.map((one) => [one, one]), ["metadata", "metadata …"]]}
      onInput=${(one) => setParams({ by: one === "metadata" ? `metadata.${metadata || "project_id"}` : one })} />
    ${own && html`<${Input} label="Metadata name" hint="Those in governance.report_metadata are quick" value=${metadata} onInput=${setMetadata} pattern="[A-Za-z0-9_.\\-]+"
      onChange=${(event) => event.target.value && event.target.checkValidity() && setParams({ by: `metadata.${event.target.value}` })} />`}
    <${Select} label="Measure" value=${measure[0]} options=${MEASURES.map(([one, text]) => [one, text])} onInput=${(one) => setParams({ measure: one })} />
    <${Input} label="From" type="date" value=${params.get("from") || ""} onInput=${(from) => setParams({ from, to: params.get("to") || from })} />
    <${Input} label="To" type="date" value=${params.get("to") || ""} onInput=${(to) => setParams({ to, from: params.get("from") || to })} />
  </div>
  <form class="bar" onSubmit=${addFilter}>
    <${Select} label="Only where" value=${name} options=${[...DIMENSIONS.map((one) => [one, one]), ["metadata", "metadata …"]]} onInput=${setName} />
    ${name === "metadata" && html`<${Input} label="Name" value=${metadata} onInput=${setMetadata} placeholder="project_id" />`}
    <${Input} label="is" value=${value} onInput=${setValue} required pattern="[^,]*" title="Commas cannot be part of a filter" />
    <button class="button">Add filter</button>
    ${filters.length > 0 && html`<div class="chips">${filters.map((one) => html`<span class="chip">${one.replace("=", " = ")}
      <button type="button" aria-label=${`Remove the filter ${one}`} onClick=${() => set(filters.filter((other) => other !== one))}>✕</button></span>`)}</div>`}
  </form></div>`;
}

function Chart({ top, rows, by, time, measure, few }) {
  const [, label, take, show] = measure;
  const names = few ? top.slice(0, top.length > SERIES ? SERIES - 1 : SERIES).map((row) => row[by]) : [null];
  const series = few ? names.map(shownName) : [label];
  if (few && top.length > names.length) series.push("others");
  const place = new Map(names.map((name, index) => [name, index])), sums = new Map(time.buckets.map((name) => [name, series.map(() => 0)]));
  for (const row of rows) {
    const values = sums.get(row[time.bucket]);
    if (values) values[few ? (place.get(row[by]) ?? series.length - 1) : 0] += Math.max(0, take(row));
  }
  const points = time.buckets.map((name) => ({ label: format.bucket(name, time.bucket), long: format.bucket(name, time.bucket, true), values: sums.get(name) }));
  return html`<${Columns} points=${points} series=${series} show=${show} label=${`${label} over time`} height=${240} />
    ${series.length > 1 && html`<${Legend} series=${series} />`}`;
}

function Groups({ rows, by, measure, where }) {
  const drill = (row) => setParams({ where: [...where.split(",").filter((one) => one && !one.startsWith(`${by}=`)), `${by}=${row[by] ?? ""}`].join(",") });
  const most = Math.max(0, ...rows.map((row) => measure[2](row)));
  const figure = (name, label, value, show, extra = {}) => ({ name, label, number: true, value, render: (row) => html`<span title=${extra.exact && extra.exact(row)}>${show(value(row))}</span>` });
  const columns = [
    { name: by, label: by.replace("metadata.", ""), value: (row) => row[by], render: (row) => html`<button class="link strong"
      title="Show only this" disabled=${String(row[by] ?? "").includes(",")} onClick=${() => drill(row)}>${shownName(row[by])}</button>` },
    { name: "share", label: measure[1], wide: true, value: measure[2], render: (row) => html`<div class="share"><div class="meter" aria-hidden="true"><div class="meter-fill"
      style=${{ width: `${most > 0 ? Math.max(0, measure[2](row)) / most * 100 : 0}%` }} /></div></div>` },
    figure("cost", "Cost", (row) => Number(row.cost_usd), format.money),
    figure("requests", "Requests", (row) => row.requests, format.short, { exact: (row) => format.number(row.requests) }),
    figure("entries", "Calls", (row) => row.entries, format.short, { exact: (row) => format.number(row.entries) }),
    figure("input_tokens", "Tokens in", (row) => row.input_tokens, format.short, { exact: (row) => format.number(row.input_tokens) }),
    figure("output_tokens", "Tokens out", (row) => row.output_tokens, format.short, { exact: (row) => format.number(row.output_tokens) }),
    figure("saved", "Saved", (row) => row.definition_tokens_saved + row.result_tokens_saved, format.short),
    figure("failed", "Errors", (row) => row.failed, format.number),
    figure("latency", "Mean time", (row) => (row.entries ? row.latency_ms / row.entries : 0), format.duration),
  ];
  return html`<${Table} label="Usage by group" columns=${columns} rows=${rows} keyOf=${(row) => shownName(row[by])} empty="No usage in this time." />
    ${rows.length >= MOST && html`<p class="more muted">The ${MOST} groups with the most of it. The CSV file has all.</p>`}`;
}
