// The MCP servers behind the gateway: whether they are reached, how they do, what their definitions would cost.
import { html } from "../lib/dom.js";
import { part, post, useData, usePages } from "../lib/api.js";
import * as format from "../lib/format.js";
import { span } from "../lib/ranges.js";
import { A, Badge, Card, Empty, Loaded, More, Page, Problem, Stat, Table, useAction } from "../lib/widgets.js";

export default function Servers({ route, session }) {
  const name = route.parts[1], state = useData("api/upstreams", {}, { every: 5000 }), { since, until } = span("7d");
  const usage = useData("api/usage", { by: "server", where: "kind=tool", since, until });
  if (name) return html`<${Server} name=${name} state=${state} session=${session} usage=${usage} />`;
  return html`<${Page} title="Servers and tools" about="Latency and errors are those of tool calls in the last 7 days.">
    <${Card} label="Servers" flush><${Loaded} state=${state}>${(data) => html`<${List} rows=${data.upstreams} usage=${usage} session=${session} reload=${state.reload} />`}</${Loaded}></${Card}>
  </${Page}>`;
}

function List({ rows, usage, session, reload }) {
  const known = new Map((usage.data ? usage.data.rows : []).map((row) => [row.server, row]));
  const of = (row) => known.get(row.name);
  return html`<${Table} label="Servers" rows=${rows} keyOf=${(row) => row.name} empty="No servers are configured: add one to mcpServers, or run mcpgate import."
    columns=${[
      { name: "name", label: "Server", value: (row) => row.name, render: (row) => html`<${A} class="strong" to=${["servers", row.name]}>${row.name}</${A}>${
        row.version && html`<div class="hint">${row.version}</div>`}` },
      { name: "state", label: "State", value: (row) => row.state, render: (row) => html`<${Badge} text=${row.state} title=${row.reason} />${row.reason && html`<div class="hint">${row.reason}</div>`}` },
      { name: "tools", label: "Tools", number: true, value: (row) => row.tools, render: (row) => format.number(row.tools) },
      { name: "tokens", label: "Definition tokens", number: true, value: (row) => row.definition_tokens, render: (row) => format.number(row.definition_tokens) },
      { name: "calls", label: "Calls", number: true, value: (row) => of(row)?.entries || 0, render: (row) => format.short(of(row)?.entries || 0) },
      { name: "latency", label: "Mean time", number: true, value: (row) => mean(of(row)), render: (row) => format.duration(mean(of(row))) },
      { name: "failed", label: "Errors", number: true, value: (row) => of(row)?.failed || 0, render: (row) => html`<${Errors} row=${of(row)} />` },
      { name: "sign_in", label: "Sign-in", render: (row) => html`<${SignIn} server=${row} session=${session} reload=${reload} />` },
    ]} />`;
}

const mean = (row) => (row && row.entries ? row.latency_ms / row.entries : null);

function Errors({ row }) {
  if (!row) return html`<span class="muted">–</span>`;
  return html`<span title=${`${format.number(row.failed)} of ${format.number(row.entries)}`}>${format.percent(row.failed / row.entries)}</span>`;
}

function SignIn({ server, session, reload }) {
  const [state, run] = useAction();
  if (server.local || session.realm || server.per_user) return html`<span class="muted">${server.per_user ? "each user" : "–"}</span>`;
  const begin = () => run(async () => {
    const found = await post(`api/upstreams/${part(server.name)}/login`);
    const url = new URL(found.url);
    if (url.protocol === "http:" || url.protocol === "https:") open(url.href, "_blank", "noopener,noreferrer");
  });
  const end = () => run(async () => { await post(`api/upstreams/${part(server.name)}/logout`); reload(); });
  return html`${server.signed_in ? html`<button class="button small" disabled=${state.busy} onClick=${end}>Sign out</button>`
    : server.state === "needs_sign_in" ? html`<button class="button small primary" disabled=${state.busy} onClick=${begin}>Sign in</button>` : html`<span class="muted">–</span>`}
    <${Problem} error=${state.error} />`;
}

function Server({ name, state, session, usage }) {
  const { since, until } = span("7d");
  const used = useData("api/usage", { by: "tool", where: `kind=tool,server=${name}`, since, until, limit: 1000, order: "entries" });
  const pages = usePages(`api/upstreams/${part(name)}/tools`, { limit: 200 }, (data) => data.tools, (data) => (data.after ? { after: data.after } : null));
  const known = new Map((used.data ? used.data.rows : []).map((row) => [row.tool, row]));
  return html`<${Page} title=${name} actions=${html`<${A} class="button" to="servers">All servers</${A}><${A} class="button" to="usage" params=${{ by: "tool", where: `server=${name}` }}>Usage</${A}>`}>
    <${Loaded} state=${state}>${(data) => {
      const row = data.upstreams.find((one) => one.name === name);
      if (!row) return html`<${Empty}>There is no server ${name}.</${Empty}>`;
      const sums = (usage.data ? usage.data.rows : []).find((one) => one.server === name);
      return html`<div class="stats">
        <${Stat} label="State" value=${html`<${Badge} text=${row.state} />`} hint=${row.reason || row.version} />
        <${Stat} label="Tools" value=${format.number(row.tools)} hint=${row.expose ? `exposed as ${row.expose}` : ""} />
        <${Stat} label="Definition tokens" value=${format.number(row.definition_tokens)} hint="with every request of classic MCP" />
        <${Stat} label="Mean time" value=${format.duration(mean(sums))} hint="of tool calls, 7 days" />
        <${Stat} label="Errors" value=${sums ? format.percent(sums.failed / sums.entries) : "–"} hint=${sums ? `of ${format.number(sums.entries)} calls` : "no calls"} />
        <${Stat} label="Connecting took" value=${row.connect_s === null ? "–" : format.duration(row.connect_s * 1000)} hint=${html`<${SignIn} server=${row} session=${session} reload=${state.reload} />`} />
      </div>${row.warning && html`<p class="note warn">${row.warning}</p>`}`;
    }}</${Loaded}>
    <${Card} title="Tools" flush><${Problem} error=${pages.error} retry=${pages.reload} />
      <${Table} label="Tools" rows=${pages.rows} keyOf=${(row) => row.name} empty=${pages.loading ? "Loading …" : "It has no tools."} columns=${[
        { name: "name", label: "Tool", value: (row) => row.name, render: (row) => html`<code class="strong">${row.name}</code>` },
        { name: "description", label: "Description", wide: true, render: (row) => html`<span class="muted">${row.description}</span>` },
        { name: "tokens", label: "Tokens", number: true, value: (row) => row.definition_tokens, render: (row) => format.number(row.definition_tokens) },
        { name: "calls", label: "Calls", number: true, value: (row) => known.get(row.name)?.entries || 0, render: (row) => format.number(known.get(row.name)?.entries || 0) },
        { name: "latency", label: "Mean time", number: true, value: (row) => mean(known.get(row.name)), render: (row) => format.duration(mean(known.get(row.name))) },
        { name: "failed", label: "Errors", number: true, value: (row) => known.get(row.name)?.failed || 0, render: (row) => html`<${Errors} row=${known.get(row.name)} />` },
      ]} /><${More} pages=${pages} /></${Card}>
  </${Page}>`;
}
