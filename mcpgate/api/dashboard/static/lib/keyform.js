// Making and changing a key.
import { html, useState } from "./dom.js";
import { part, patch, post } from "./api.js";
import { LimitFields, joined, limitsFrom, limitsOf, words } from "./limitform.js";
import { Check, Copy, Dialog, Input, Problem, useAction } from "./widgets.js";

const META = ["list_tools", "describe_tools", "read_docs", "execute_code"];
const GRANTS = [["tools", "Tools", "Globs over server.tool, such as files.* docs.search"], ["servers", "Servers", "All tools, resources and prompts of these"],
  ["models", "Models", "Aliases and provider/model"], ["providers", "Providers", "All models of these"]];

function formOf(spec) {
  const grants = spec.grants || {};
  return {
    name: spec.name || "", user: spec.user || "", team: spec.team || "", customer: spec.customer || "", enabled: spec.enabled !== false,
    tools: joined(grants.tools), servers: joined(grants.servers), models: joined(grants.models), providers: joined(grants.providers),
    meta_tools: grants.meta_tools == null ? "" : grants.meta_tools.length ? joined(grants.meta_tools) : "none", admin: Boolean(grants.admin),
    expires_at: spec.expires_at ? spec.expires_at.slice(0, 10) : "", allowed_ips: joined(spec.allowed_ips), ...limitsOf(spec),
  };
}

function specFrom(form, spec) {
  const meta = form.meta_tools.trim() === "none" ? [] : words(form.meta_tools);
  return {
    name: form.name.trim(), user: form.user.trim() || null, team: form.team.trim() || null, customer: form.customer.trim() || null, enabled: form.enabled,
    grants: { tools: words(form.tools), servers: words(form.servers), models: words(form.models), providers: words(form.providers),
      meta_tools: form.meta_tools.trim() === "" ? null : meta, admin: form.admin },
    expires_at: form.expires_at ? (spec.expires_at && spec.expires_at.startsWith(form.expires_at) ? spec.expires_at : `${form.expires_at}T00:00:00Z`) : null,
    allowed_ips: words(form.allowed_ips), ...limitsFrom(form, spec),
  };
}

/** `shown`: the key that is changed, as /api/keys/{id} has it; without it a key is made. */
export function KeyForm({ shown, known, onDone, onClose }) {
  const spec = shown ? shown.spec : {}, [form, setForm] = useState(() => formOf(spec)), [made, setMade] = useState(null), [state, run] = useAction();
  const set = (changes) => setForm((before) => ({ ...before, ...changes }));
  const submit = (event) => {
    event.preventDefault();
    run(async () => {
      if (shown) {
        await patch(`api/keys/${part(shown.id)}`, specFrom(form, spec));
        onDone();
      } else {
        setMade(await post("api/keys", specFrom(form, {})));
      }
    });
  };
  if (made) return html`<${Secret} title="The key was made" id=${made.key.id} secret=${made.secret} onClose=${onDone} />`;
  return html`<${Dialog} wide title=${shown ? `Change ${shown.name || shown.id}` : "New key"} onClose=${onClose}><form class="form" onSubmit=${submit}>
    <${Input} label="Name" hint="What it is for" value=${form.name} onInput=${(name) => set({ name })} maxlength="128" />
    <${Named} label="User" names=${known.users} value=${form.user} onInput=${(user) => set({ user })} />
    <${Named} label="Team" names=${known.teams} value=${form.team} onInput=${(team) => set({ team })} />
    <${Named} label="Customer" names=${known.customers} value=${form.customer} onInput=${(customer) => set({ customer })} />
    <fieldset><legend>What it may do</legend><div class="form">
      ${GRANTS.map(([name, label, hint]) => html`<${Input} label=${label} hint=${hint} value=${form[name]} onInput=${(text) => set({ [name]: text })} />`)}
      <${Input} label="Meta-tools" hint=${`Empty: all, if it has any tool. “none”, or some of ${META.join(", ")}`} value=${form.meta_tools} onInput=${(meta_tools) => set({ meta_tools })} />
      <${Check} label="Administrator" hint="May use this dashboard; of a team or customer, only what is theirs" value=${form.admin} onInput=${(admin) => set({ admin })} />
    </div></fieldset>
    <${LimitFields} form=${form} set=${set} />
    <fieldset><legend>Use</legend><div class="form">
      <${Input} label="Works until" type="date" value=${form.expires_at} onInput=${(expires_at) => set({ expires_at })} />
      <${Input} label="Only from" hint="Addresses and networks, such as 10.0.0.0/8" value=${form.allowed_ips} onInput=${(allowed_ips) => set({ allowed_ips })} />
      <${Check} label="Switched on" value=${form.enabled} onInput=${(enabled) => set({ enabled })} />
    </div></fieldset>
    <${Problem} error=${state.error} />
    <div class="form-end"><button type="button" class="button" onClick=${onClose}>Cancel</button>
      <button class="button primary" disabled=${state.busy}>${shown ? "Save" : "Make the key"}</button></div>
  </form></${Dialog}>`;
}

/** A name that may be one of those declared. */
export function Named({ label, names, value, onInput, hint }) {
  const list = `known-${label.toLowerCase()}`;
  return html`<div><${Input} label=${label} hint=${hint} list=${list} value=${value} onInput=${onInput} />
    <datalist id=${list}>${(names || []).map((name) => html`<option value=${name} />`)}</datalist></div>`;
}

export function Secret({ title, id, secret, onClose }) {
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <p class="note warn">This is the only time that the secret is shown.</p>
    <div class="secret"><code aria-label="Secret">${secret}</code><${Copy} text=${secret} /></div>
    <p class="muted">Key ${id}. Clients send it as <code>Authorization: Bearer …</code> or <code>x-api-key: …</code>.</p>
    <div class="form-end"><button type="button" class="button primary" onClick=${onClose}>Done</button></div></${Dialog}>`;
}

export function Rotate({ shown, onDone, onClose }) {
  const [overlap, setOverlap] = useState("1d"), [made, setMade] = useState(null), [state, run] = useAction();
  if (made) return html`<${Secret} title="A new secret" id=${shown.id} secret=${made.secret} onClose=${onDone} />`;
  const submit = (event) => {
    event.preventDefault();
    run(async () => setMade(await post(`api/keys/${part(shown.id)}/rotate`, { overlap })));
  };
  return html`<${Dialog} title=${`New secret for ${shown.name || shown.id}`} onClose=${onClose}><form class="stack" onSubmit=${submit}>
    <${Input} label="The old secret works for another" hint="A period such as 1h or 1d, or 0" value=${overlap} onInput=${setOverlap} required />
    <${Problem} error=${state.error} />
    <div class="form-end"><button type="button" class="button" onClick=${onClose}>Cancel</button>
      <button class="button primary" disabled=${state.busy}>Make a new secret</button></div></form></${Dialog}>`;
}
