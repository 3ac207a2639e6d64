// The frame: who is signed in, which page is shown. Each page is a module of its own, loaded when it is first opened.
import { html, render, useEffect, useRef, useState } from "./lib/dom.js";
import { BASE, get, remove, send, setSession } from "./lib/api.js";
import { link, useRoute } from "./lib/route.js";
import { Icon, Problem, Time, useAction } from "./lib/widgets.js";

const GROUPS = [
  ["", [["overview", "Overview"], ["usage", "Usage"]]],
  ["Activity", [["requests", "Requests"], ["executions", "Executions"], ["alerts", "Alerts"]]],
  ["Access", [["keys", "Keys and teams"], ["limits", "Budgets and limits"], ["changes", "Changes"]]],
  ["Gateway", [["servers", "Servers and tools"], ["models", "Models"], ["cache", "Cache"], ["try", "Try it"]]],
];
const FOR_ALL_ONLY = new Set(["changes", "alerts", "cache"]);
const PAGES = GROUPS.flatMap(([, pages]) => pages.map(([name]) => name));
const THEMES = { auto: "System", light: "Light", dark: "Dark" };

function useTheme() {
  const [theme, setTheme] = useState(() => localStorage.getItem("mcpgate-theme") || "auto");
  useEffect(() => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    localStorage.setItem("mcpgate-theme", theme);
  }, [theme]);
  return [theme, setTheme];
}

function useSession() {
  const [state, setState] = useState({ session: null, error: null });
  const load = async () => {
    try {
      const session = await get("dashboard/session");
      setSession(session.signed_in ? session : null, () => setState({ session: { signed_in: false, ended: true }, error: null }));
      setState({ session, error: null });
    } catch (error) {
      setState({ session: null, error });
    }
  };
  useEffect(() => { load(); }, []);
  return { ...state, load };
}

function SignIn({ session, onDone, token }) {
  const [secret, setSecret] = useState(token || ""), [state, run] = useAction();
  useEffect(() => { document.title = "Sign in · mcpgate"; }, []);
  const submit = (event) => {
    event.preventDefault();
    run(async () => {
      await send("POST", "dashboard/session", { body: { key: secret.trim() } });
      setSecret("");
      if (token) location.hash = link("overview");
      await onDone();
    });
  };
  return html`<main class="gate"><form class="card" onSubmit=${submit}>
    <div class="brand"><img src="icon.svg" alt="" />mcpgate</div>
    <div><h1>Sign in</h1><p class="muted">With a key that has the grant <code>admin</code>, or the one-time token that${" "}
      <code>mcpgate serve</code> has printed.</p></div>
    ${session.ended && html`<p class="note" role="status">Your session has ended.</p>`}
    <div class="field"><label for="secret">Key or token</label><input id="secret" type="password" autocomplete="current-password"
      required value=${secret} onInput=${(event) => setSecret(event.target.value)} autofocus /></div>
    <${Problem} error=${state.error} />
    <button class="button primary" disabled=${state.busy || !secret.trim()}>Sign in</button>
  </form></main>`;
}

function Side({ session, page, onSignedOut }) {
  const [open, setOpen] = useState(false), [theme, setTheme] = useTheme(), [state, run] = useAction();
  const shown = (name) => !(session.realm && FOR_ALL_ONLY.has(name));
  return html`<nav class=${open ? "side open" : "side"} aria-label="Pages">
    <div class="side-top"><a class="brand" href="#/overview"><img src="icon.svg" alt="" />mcpgate</a>
      <button class="button menu-button" aria-expanded=${open ? "true" : "false"} onClick=${() => setOpen(!open)}>Menu</button></div>
    <div class="side-pages stack">${GROUPS.map(([title, pages]) => html`<div>${title && html`<div class="group">${title}</div>`}
      <ul>${pages.filter(([name]) => shown(name)).map(([name, text]) => html`<li><a class="page" href=${link(name)} onClick=${() => setOpen(false)}
        aria-current=${name === page ? "page" : undefined}><${Icon} name=${name} />${text}</a></li>`)}</ul></div>`)}</div>
    <div class="side-end">
      <label class="row"><span class="muted">Colours</span><select value=${theme} onChange=${(event) => setTheme(event.target.value)}
        aria-label="Colours">${Object.entries(THEMES).map(([name, text]) => html`<option value=${name} selected=${name === theme}>${text}</option>`)}</select></label>
      <div class="who" title=${session.key || ""}>${session.key ? html`Key <strong>${session.name || session.key}</strong>` : session.csrf
        ? html`<strong>One-time sign-in</strong>` : html`<span class="muted">This machine, no key needed</span>`}</div>
      ${session.realm && html`<div class="muted">Sees the ${session.realm[0]} <strong>${session.realm[1]}</strong></div>`}
      ${session.csrf && html`<div class="row"><span class="muted">until <${Time} at=${session.ends_at} /></span>
        <button class="link" disabled=${state.busy} onClick=${() => run(async () => { await remove("dashboard/session"); onSignedOut(); })}>Sign out</button></div>`}
      <${Problem} error=${state.error} />
      <div class="row muted"><span>mcpgate ${session.version}</span><a href=${new URL("api/openapi.json", BASE).href}>API</a></div>
    </div></nav>`;
}

function Shown({ name, session, route }) {
  const [page, setPage] = useState({ name: "", View: null, error: null }), first = useRef(true);
  useEffect(() => {
    let wanted = true;
    import(`./pages/${name}.js`).then(
      (module) => wanted && setPage({ name, View: module.default, error: null }),
      () => wanted && setPage({ name, View: null, error: { message: "The page could not be loaded; reload to try again." } }),
    );
    return () => { wanted = false; };
  }, [name]);
  useEffect(() => {
    if (page.name !== name) return;
    if (!first.current) document.getElementById("title")?.focus();  // screen readers hear where they are
    first.current = false;
  }, [page.name]);
  if (page.name !== name) return html`<div class="loading" role="status">Loading …</div>`;
  return page.View ? html`<${page.View} key=${name} route=${route} session=${session} />` : html`<${Problem} error=${page.error} />`;
}

function App() {
  const { session, error, load } = useSession(), route = useRoute();
  const name = PAGES.includes(route.parts[0]) ? route.parts[0] : "overview";
  useTheme();
  if (error) return html`<main class="gate"><div class="card"><${Problem} error=${error} retry=${load} /></div></main>`;
  if (!session) return html`<main class="gate"><div class="loading" role="status">Loading …</div></main>`;
  const token = route.parts[0] === "sign-in" ? route.parts[1] : "";
  if (!session.signed_in || token) return html`<${SignIn} session=${session} onDone=${load} token=${token} />`;
  return html`<div class="frame"><a class="skip" href="#content" onClick=${(event) => { event.preventDefault();
      document.getElementById("title")?.focus(); }}>To the content</a>
    <${Side} session=${session} page=${name} onSignedOut=${load} />
    <main id="content"><${Shown} name=${name} session=${session} route=${route} /></main></div>`;
}

render(html`<${App} />`, document.getElementById("app"));
