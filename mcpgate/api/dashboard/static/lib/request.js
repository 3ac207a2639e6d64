// One request: what it was, where its time went, what belongs to it as a timeline, and its content where that is kept.
import { html, useState } from "./dom.js";
import { part, useData } from "./api.js";
import * as format from "./format.js";
import { link } from "./route.js";
import { Outcome, titleOf } from "./requestlist.js";
import { A, Card, Code, Copy, Loaded, Page, Problem, Stat, Time } from "./widgets.js";

export function Request({ id }) {
  const state = useData(`api/requests/${part(id)}`);
  return html`<${Loaded} state=${state}>${(row) => html`<${Page} title=${titleOf(row)} about=${`${row.kind} · ${row.id}`} actions=${html`
      ${row.parent_id && html`<${A} class="button" to=${["requests", row.parent_id]}>What it belongs to</${A}>`}
      <a class="button" href=${link(row.kind === "execution" ? "executions" : "requests")}>All ${row.kind === "execution" ? "executions" : "requests"}</a>`}>
    <div class="stats">
      <${Stat} label="Outcome" value=${html`<${Outcome} row=${row} />`} hint=${row.status ? `HTTP ${row.status}` : ""} />
      <${Stat} label="Time" value=${format.duration(row.latency_ms.total)} hint=${`${format.duration(row.latency_ms.own)} of it the gateway`} />
      <${Stat} label="Cost" value=${format.money(row.cost_usd)} hint=${row.unpriced ? `${row.unpriced} without a price` : ""} />
      <${Stat} label="Tokens" value=${format.number(row.tokens.input + row.tokens.output)} hint=${`${format.number(row.tokens.input)} in, ${format.number(row.tokens.output)} out`} />
      <${Stat} label="Tokens saved" value=${format.number(row.saved_tokens.definitions + row.saved_tokens.results)} hint="estimated" />
      <${Stat} label="When" value=${html`<${Time} at=${row.at} />`} hint=${format.exact(row.at)} />
    </div>
    <${Content} id=${row.id}>${(row.children || []).length > 0 && html`<${Timeline} row=${row} />`}</${Content}>
    <div class="grid-2"><${Card} title="Who and what"><${Facts} rows=${facts(row)} /></${Card}>
      <${Card} title="Where the time went"><${Facts} rows=${times(row)} /></${Card}></div></${Page}>`}</${Loaded}>`;
}

function Facts({ rows }) {
  return html`<dl class="facts">${rows.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;
}

function facts(row) {
  const metadata = Object.entries(row.metadata).map(([name, value]) => [`metadata ${name}`, value]);
  return [["Key", html`<${A} to=${["keys", "key", row.key]}>${row.key_name || row.key}</${A}>`], ["User", row.user], ["Team", row.team], ["Customer", row.customer],
    ["Server", row.server], ["Tool", row.tool], ["Asked for", row.alias], ["Answered by", row.model && `${row.provider || ""}/${row.model}`], ["Attempts", row.attempts > 1 ? row.attempts : null],
    ["Cache", row.cache], ["Client", row.client], ["Session", row.session], ["Request id", row.request_id], ...metadata, ...Object.entries(row.facts)];
}

const PARTS = { upstream: "Servers and providers", tools: "Tools, called by code", sandbox: "Running code", own: "The gateway itself", first_token: "Until the first token", total: "In all" };

function times(row) {
  return Object.entries(PARTS).map(([name, label]) => [label, row.latency_ms[name] === null ? null : format.duration(row.latency_ms[name])]);
}

/** Everything below a request, in order, with its depth. */
function below(rows, depth = 0) {
  return rows.flatMap((row) => [{ ...row, depth }, ...below(row.children || [], depth + 1)]);
}

const MOST = 300;

function Timeline({ row }) {
  const all = below(row.children), start = Date.parse(row.at), [whole, setWhole] = useState(false);
  const end = Math.max(start + row.latency_ms.total, ...all.map((one) => Date.parse(one.at) + one.latency_ms.total)), length = Math.max(1, end - start);
  return html`<${Card} title=${`Calls (${format.number(all.length)})`}><div class="timeline" role="table" aria-label="Calls over time">
    ${(whole ? all : all.slice(0, MOST)).map((one) => {
      const from = Math.max(0, Date.parse(one.at) - start);
      return html`<div class="row" role="row"><span class="name" role="cell" style=${{ paddingLeft: `${one.depth * 12}px` }}><${A} to=${["requests", one.id]}>${titleOf(one)}</${A}></span>
        <span class="track" role="cell" title=${`begins after ${format.duration(from)}`}><span class=${one.outcome === "ok" ? "span" : "span bad"}
          style=${{ left: `${Math.min(99.5, from / length * 100)}%`, width: `${Math.min(100, one.latency_ms.total / length * 100)}%` }} /></span>
        <span class="num" role="cell">${format.duration(one.latency_ms.total)}${one.cost_usd && Number(one.cost_usd) > 0 && html` · ${format.money(one.cost_usd)}`}${one.outcome !== "ok" && html` <${Outcome} row=${one} />`}</span></div>`;
    })}</div>
    ${all.length > MOST && !whole && html`<button class="button" onClick=${() => setWhole(true)}>Show all ${format.number(all.length)}</button>`}
    ${row.truncated && html`<p class="hint">There are more calls than are shown.</p>`}</${Card}>`;
}

/** The code, the arguments, the messages and the answers, where the settings have them kept; in between, `children`. */
function Content({ id, children }) {
  const state = useData(`api/requests/${part(id)}/content`);
  if (!state.data) return state.error && state.error.status !== 404 ? html`<${Problem} error=${state.error} retry=${state.reload} />${children}` : children;
  const own = state.data.contents.find((one) => one.id === id), others = state.data.contents.filter((one) => one.id !== id);
  if (!state.data.contents.length) return html`<p class="hint">What it said is not kept. Set <code>telemetry.log_content</code> to keep code, arguments and answers.</p>${children}`;
  return html`${own && html`<div class="grid-2"><${Said} title=${own.kind === "execution" ? "Code" : "Asked"} text=${asked(own)} /><${Said} title="Answer" text=${own.answered} /></div>`}${children}
    ${others.length > 0 && html`<${Card} title=${`What its calls said (${others.length})`}><div class="stack">${others.map((one) => html`<details><summary><code>${titleOf(one)}</code></summary>
      <div class="grid-2"><${Code} label="Arguments" text=${pretty(one.sent)} /><${Code} label="Result" text=${pretty(one.answered)} /></div></details>`)}</div></${Card}>`}`;
}

function Said({ title, text }) {
  return html`<${Card} title=${title} actions=${html`<${Copy} text=${text} />`}><${Code} label=${`${title}, whole`} text=${pretty(text)} /></${Card}>`;
}

/** Of an execution its code, without the JSON around it. */
function asked(one) {
  try {
    const found = JSON.parse(one.sent);
    return one.kind === "execution" && typeof found.code === "string" ? found.code : one.sent;
  } catch { return one.sent; }
}

function pretty(text) {
  if (text.length > 200000 || !/^\s*[[{]/.test(text)) return text;
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}
