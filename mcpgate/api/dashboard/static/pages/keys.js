// Keys, and the customers, teams and users that they belong to.
import { html, useState } from "../lib/dom.js";
import { part, post, put, remove, useData, usePages } from "../lib/api.js";
import * as format from "../lib/format.js";
import { KeyForm, Named, Rotate } from "../lib/keyform.js";
import { LimitBar } from "../lib/limit.js";
import { LimitFields, limitsFrom, limitsOf } from "../lib/limitform.js";
import { link } from "../lib/route.js";
import { A, Badge, Card, Confirm, Dialog, Empty, Input, Loaded, More, Page, Problem, Table, Tabs, Time, useAction } from "../lib/widgets.js";

const KINDS = { customers: ["customer", "Customers"], teams: ["team", "Teams"], users: ["user", "Users"] };
const LIMIT = 100;

export default function Keys({ route, session }) {
  const part_ = route.parts[1] || "keys";
  const customers = useData("api/customers"), teams = useData("api/teams"), users = useData("api/users");
  const lists = { customers, teams, users };
  const known = Object.fromEntries(Object.entries(lists).map(([name, state]) => [name, (state.data ? state.data[name] : []).map((one) => one.id)]));
  if (part_ === "key") return html`<${Key} id=${route.parts[2] || ""} known=${known} session=${session} />`;
  const tabs = [["keys", "Keys", link("keys")], ...Object.entries(KINDS).map(([name, [, text]]) => [name, text, link(["keys", name])])];
  return html`<${Page} title="Keys and teams"><${Tabs} tabs=${tabs} current=${part_} label="Keys, customers, teams, users" />
    ${KINDS[part_] ? html`<${Scopes} key=${part_} name=${part_} state=${lists[part_]} known=${known} session=${session} />` : html`<${List} known=${known} session=${session} />`}
  </${Page}>`;
}

function List({ known, session }) {
  const [making, setMaking] = useState(false), [text, setText] = useState("");
  const pages = usePages("api/keys", { limit: LIMIT }, (data) => data.keys, (data) => (data.after ? { after: data.after } : null));
  const wanted = text.toLowerCase();
  const rows = pages.rows.filter((row) => !wanted || [row.id, row.name, row.user, row.team, row.customer].some((value) => value && value.toLowerCase().includes(wanted)));
  return html`<${Card} label="Keys" flush><div class="card-head"><div class="bar grow"><${Input} label="Find" value=${text} onInput=${setText} placeholder="name, id, user, team …" /></div>
      ${!session.realm && html`<button class="button primary" onClick=${() => setMaking(true)}>New key</button>`}</div>
    <${Problem} error=${pages.error} retry=${pages.reload} />
    <${Table} label="Keys" rows=${rows} keyOf=${(row) => row.id} empty=${pages.loading ? "Loading …" : "There are no keys."} columns=${[
      { name: "name", label: "Key", value: (row) => row.name || row.id, render: (row) => html`<${A} class="strong" to=${["keys", "key", row.id]}>${row.name || row.id}</${A}>
        <div class="hint">${row.id}${row.secret_ends_with && ` · …${row.secret_ends_with}`}${row.declared && " · in the file"}</div>` },
      { name: "state", label: "State", value: (row) => row.state, render: (row) => html`<${Badge} text=${row.state} />` },
      { name: "whose", label: "Whose", value: (row) => row.user || row.team || row.customer, render: (row) => html`<${Whose} row=${row} />` },
      { name: "grants", label: "May use", wide: true, render: (row) => html`<${Grants} grants=${row.grants} />` },
      { name: "created", label: "Made", value: (row) => row.created_at, render: (row) => html`<${Time} at=${row.created_at} />` },
      { name: "expires", label: "Until", value: (row) => row.expires_at, render: (row) => html`<${Time} at=${row.expires_at} />` },
    ]} /><${More} pages=${pages} />
    ${making && html`<${KeyForm} known=${known} onClose=${() => setMaking(false)} onDone=${() => { setMaking(false); pages.reload(); }} />`}</${Card}>`;
}

function Whose({ row }) {
  const found = ["user", "team", "customer"].filter((name) => row[name]);
  if (!found.length) return html`<span class="muted">–</span>`;
  return found.map((name) => html`<div><span class="muted">${name}</span> ${row[name]}</div>`);
}

function Grants({ grants }) {
  const found = [["tools", ""], ["servers", "server "], ["models", "model "], ["providers", "provider "]]
    .flatMap(([name, before]) => (grants[name] || []).map((glob) => before + glob));
  const shown = found.slice(0, 6);
  return html`${grants.admin && html`<${Badge} text="admin" tone="warn" /> `}${shown.map((text) => html`<span class="tag">${text}</span>`)}
    ${found.length > shown.length && html`<span class="muted">and ${found.length - shown.length} more</span>`}
    ${!found.length && !grants.admin && html`<span class="muted">nothing</span>`}`;
}

function Key({ id, known, session }) {
  const state = useData(`api/keys/${part(id)}`), standing = useData(`api/keys/${part(id)}/standing`, {}, { every: 5000 });
  const [open, setOpen] = useState("");
  const done = () => { setOpen(""); state.reload(); standing.reload(); };
  const row = state.data, may = row && !row.declared && row.state !== "revoked" && !session.realm;
  const actions = html`<a class="button" href=${link("keys")}>All keys</a>
    <${A} class="button" to="usage" params=${{ by: "tool", where: `key=${id}` }}>Usage</${A}>
    ${may && [["change", "Change"], ["rotate", "New secret"], ["reset", "Reset limits"]].map(([name, text]) => html`<button class="button" onClick=${() => setOpen(name)}>${text}</button>`)}
    ${may && html`<button class="button danger" onClick=${() => setOpen("revoke")}>Revoke</button>`}`;
  return html`<${Page} title=${row ? row.name || row.id : id} actions=${actions}><${Loaded} state=${state}>${(key) => html`<div class="grid-2">
      <${Card} title="Key"><dl class="facts">
        <dt>State</dt><dd><${Badge} text=${key.state} />${key.declared && html` <span class="muted">declared in the configuration file, and changed there</span>`}</dd>
        <dt>Id</dt><dd><code>${key.id}</code></dd>
        <dt>Secret</dt><dd>${key.secret_ends_with ? `…${key.secret_ends_with}` : "in the file"}${key.secrets > 1 && html` <span class="muted">and an old one for a while</span>`}</dd>
        <dt>Whose</dt><dd><${Whose} row=${key} /></dd><dt>May use</dt><dd><${Grants} grants=${key.grants} /></dd>
        <dt>Made</dt><dd><${Time} at=${key.created_at} /></dd><dt>Works until</dt><dd><${Time} at=${key.expires_at} /></dd>
        ${key.spec.allowed_ips.length > 0 && html`<dt>Only from</dt><dd>${key.spec.allowed_ips.map((text) => html`<span class="tag">${text}</span>`)}</dd>`}
        ${key.spec.bundle && html`<dt>Bundle</dt><dd>${key.spec.bundle}</dd>`}
      </dl></${Card}>
      <${Card} title="Own limits"><${Loaded} state=${standing}>${(found) => (found.standings.length
        ? html`<div class="stack">${found.standings.map((one) => html`<${LimitBar} row=${{ ...one, kind: "budget", of: one.measure.replaceAll("_", " ") }} />`)}</div>`
        : html`<${Empty}>It has no limits of its own; those of its user, team and customer apply.</${Empty}>`)}</${Loaded}></${Card}>
    </div>
    ${open === "change" && html`<${KeyForm} shown=${key} known=${known} onClose=${() => setOpen("")} onDone=${done} />`}
    ${open === "rotate" && html`<${Rotate} shown=${key} onClose=${() => setOpen("")} onDone=${done} />`}
    ${open === "reset" && html`<${Confirm} title="Reset its limits?" text="What it has spent no longer counts. The ledger keeps it." action="Reset"
      onClose=${() => setOpen("")} onYes=${async () => { await post(`api/keys/${part(id)}/reset`); done(); }} />`}
    ${open === "revoke" && html`<${Confirm} title="Revoke this key?" text="It stops working at once, everywhere, and cannot be brought back." action="Revoke"
      onClose=${() => setOpen("")} onYes=${async () => { await post(`api/keys/${part(id)}/revoke`); done(); }} />`}`}</${Loaded}></${Page}>`;
}

const ABOVE = { teams: ["customer", "customers"], users: ["team", "teams"] };

function Scopes({ name, state, known, session }) {
  const [kind, title] = KINDS[name], above = ABOVE[name], [form, setForm] = useState(null), [gone, setGone] = useState(null);
  const limits = (row) => [...row.budget.map((one) => `${format.money(one.limit_usd)}${one.period ? ` a ${format.period(one.period)}` : " in all"}`),
    ...row.rate_limits.map((one) => (one.concurrency !== null ? `${one.concurrency} at once`
      : `${format.number(one.requests ?? one.tokens ?? one.execution_seconds ?? 0)} ${one.requests !== null ? "requests" : one.tokens !== null ? "tokens" : ""} a ${format.period(one.window)}`))];
  return html`<${Card} label=${title} flush><div class="card-head"><h2>${title}</h2>${!session.realm && html`<button class="button primary" onClick=${() => setForm({ row: null })}>New ${kind}</button>`}</div>
    <${Loaded} state=${state}>${(data) => html`<${Table} label=${title} rows=${data[name]} keyOf=${(row) => row.id} empty=${`There are no ${name}.`} columns=${[
      { name: "id", label: title.slice(0, -1), value: (row) => row.id, render: (row) => html`<${A} class="strong" to="usage" params=${{ by: "key", where: `${kind}=${row.id}` }}>${row.id}</${A}>
        ${row.declared && html`<div class="hint">in the file</div>`}` },
      ...(above ? [{ name: above[0], label: above[0] === "team" ? "Team" : "Customer", value: (row) => row[above[0]], render: (row) => row[above[0]] || html`<span class="muted">–</span>` }] : []),
      { name: "limits", label: "Limits", wide: true, render: (row) => limits(row).map((text) => html`<span class="tag">${text}</span>`) },
      { name: "actions", label: "", number: true, render: (row) => !row.declared && !session.realm && html`<button class="button small" onClick=${() => setForm({ row })}>Change</button>${" "}
        <button class="button small danger" onClick=${() => setGone(row)}>Remove</button>` },
    ]} />`}</${Loaded}>
    ${form && html`<${ScopeForm} name=${name} kind=${kind} above=${above} row=${form.row} known=${known} onClose=${() => setForm(null)} onDone=${() => { setForm(null); state.reload(); }} />`}
    ${gone && html`<${Confirm} title=${`Remove the ${kind} ${gone.id}?`} text="Its limits no longer apply. Its keys and its usage stay." action="Remove" onClose=${() => setGone(null)}
      onYes=${async () => { await remove(`api/${name}/${part(gone.id)}`); setGone(null); state.reload(); }} />`}</${Card}>`;
}

function ScopeForm({ name, kind, above, row, known, onDone, onClose }) {
  const [form, setForm] = useState(() => ({ id: row ? row.id : "", above: row && above ? row[above[0]] || "" : "", ...limitsOf(row || {}) }));
  const [state, run] = useAction(), set = (changes) => setForm((before) => ({ ...before, ...changes }));
  const submit = (event) => {
    event.preventDefault();
    run(async () => {
      await put(`api/${name}/${part(form.id.trim())}`, { ...(above ? { [above[0]]: form.above.trim() || null } : {}), ...limitsFrom(form, row || {}) });
      onDone();
    });
  };
  return html`<${Dialog} title=${row ? `Change the ${kind} ${row.id}` : `New ${kind}`} onClose=${onClose}><form class="form" onSubmit=${submit}>
    <${Input} label="Id" value=${form.id} onInput=${(id) => set({ id })} required disabled=${Boolean(row)} maxlength="128" />
    ${above && html`<${Named} label=${above[0] === "team" ? "Team" : "Customer"} names=${known[above[1]]} value=${form.above} onInput=${(text) => set({ above: text })} />`}
    <${LimitFields} form=${form} set=${set} /><${Problem} error=${state.error} />
    <div class="form-end"><button type="button" class="button" onClick=${onClose}>Cancel</button><button class="button primary" disabled=${state.busy}>Save</button></div>
  </form></${Dialog}>`;
}
