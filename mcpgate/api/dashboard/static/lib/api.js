// Requests to the gateway: JSON in and out, the token of the visit with every change, errors as people can read them.
import { useCallback, useEffect, useRef, useState } from "./dom.js";

/** Where the gateway is: above the dashboard, whatever prefix a proxy serves it under. */
export const BASE = new URL("..", document.baseURI);
let session = null;
let onSignedOut = () => {};

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export function setSession(found, signedOut) {
  session = found;
  onSignedOut = signedOut;
}

export function address(path, query) {
  const url = new URL(path.replace(/^\//, ""), BASE);
  for (const [name, value] of Object.entries(query || {})) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

export function headers(more) {
  const found = { accept: "application/json", ...more };
  if (session && session.csrf) found[session.csrf_header] = session.csrf;
  return found;
}

async function failure(response) {
  let code = "", message = `${response.status} ${response.statusText}`;
  try {
    const error = (await response.json()).error;
    if (error && typeof error === "object") {
      code = String(error.code || "");
      message = String(error.message || message);
    }
  } catch { /* not JSON: the status says enough */ }
  return new ApiError(response.status, code, message);
}

/** The response of a request. Throws ApiError. */
export async function send(method, path, { query, body, accept, signal, metadata } = {}) {
  const given = body === undefined ? {} : { body: JSON.stringify(body) };
  const kind = body === undefined ? {} : { "content-type": "application/json" };
  let response;
  try {
    response = await fetch(address(path, query), {
      method, headers: headers({ ...kind, ...(accept ? { accept } : {}), ...(metadata ? { "x-mcpgate-metadata": metadata } : {}) }), credentials: "same-origin",
      cache: "no-store", signal, ...given,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "the gateway does not answer");
  }
  if (response.status === 401 && session) onSignedOut();
  if (!response.ok) throw await failure(response);
  return response;
}

async function json(method, path, options) {
  const response = await send(method, path, options);
  return response.status === 204 ? null : response.json();
}

export const get = (path, query, signal) => json("GET", path, { query, signal });
export const post = (path, body = {}) => json("POST", path, { body });
export const put = (path, body) => json("PUT", path, { body });
export const patch = (path, body) => json("PATCH", path, { body });
export const remove = (path) => json("DELETE", path);
export const part = encodeURIComponent;

/** What a GET answers: {data, error, loading, reload}. Asked again when path or query change, and every `every` ms
    while the page is visible. `path` null: nothing is asked. */
export function useData(path, query, { every = 0 } = {}) {
  const [state, setState] = useState({ data: null, error: null, loading: true });
  const asked = useRef(0);
  const place = path === null ? null : address(path, query).href;
  const load = useCallback(async (quiet) => {
    if (place === null) return;
    const turn = ++asked.current;
    if (!quiet) setState((before) => ({ ...before, loading: true }));
    try {
      const url = new URL(place);
      const data = await get(url.pathname.slice(BASE.pathname.length), Object.fromEntries(url.searchParams));
      if (turn === asked.current) setState({ data, error: null, loading: false });
    } catch (error) {
      if (turn === asked.current) setState((before) => ({ data: quiet ? before.data : null, error, loading: false }));
    }
  }, [place]);
  useEffect(() => {
    load(false);
    return () => { asked.current += 1; };
  }, [load]);
  useEffect(() => {
    if (!every) return undefined;
    const timer = setInterval(() => { if (!document.hidden) load(true); }, every);
    const back = () => { if (!document.hidden) load(true); };
    document.addEventListener("visibilitychange", back);
    return () => { clearInterval(timer); document.removeEventListener("visibilitychange", back); };
  }, [load, every]);
  return { ...state, reload: () => load(true) };
}

/** Pages of a list: {rows, error, loading, more, next, reload}. `rowsOf` and `afterOf` take them from an answer;
    `afterOf` gives the query of the next page, or null. */
export function usePages(path, query, rowsOf, afterOf) {
  const [state, setState] = useState({ rows: [], next: null, error: null, loading: true });
  const turn = useRef(0);
  const place = JSON.stringify([path, query]);
  const load = useCallback(async (more, before) => {
    const mine = ++turn.current;
    setState((known) => ({ ...known, loading: true }));
    try {
      const data = await get(path, { ...query, ...more });
      const rows = rowsOf(data);
      if (mine === turn.current) setState({ rows: [...before, ...rows], next: afterOf(data, rows), error: null, loading: false });
    } catch (error) {
      if (mine === turn.current) setState((known) => ({ ...known, error, loading: false }));
    }
  }, [place]);
  useEffect(() => { load({}, []); return () => { turn.current += 1; }; }, [load]);
  return { ...state, more: () => load(state.next, state.rows), reload: () => load({}, []), setRows: (change) =>
    setState((known) => ({ ...known, rows: change(known.rows) })) };
}
