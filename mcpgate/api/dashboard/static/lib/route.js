// Where the visitor is: `#/page/part?name=value`. Everything a page shows can be linked to.
import { useEffect, useState } from "./dom.js";

export function parse(hash) {
  const [path, query] = hash.replace(/^#\/?/, "").split("?");
  return { parts: path.split("/").filter(Boolean).map(decode), params: new URLSearchParams(query || "") };
}

function decode(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

export function useRoute() {
  const [route, setRoute] = useState(() => parse(location.hash));
  useEffect(() => {
    const change = () => setRoute(parse(location.hash));
    addEventListener("hashchange", change);
    return () => removeEventListener("hashchange", change);
  }, []);
  return route;
}

/** The address of a page. */
export function link(parts, params) {
  const query = new URLSearchParams(Object.entries(params || {}).filter(([, value]) => value !== "" && value != null));
  const path = [].concat(parts).map(encodeURIComponent).join("/");
  return `#/${path}${query.size ? `?${query}` : ""}`;
}

/** Change some parameters of the page that is shown; an empty one is removed. */
export function setParams(changes, replace = false) {
  const { parts, params } = parse(location.hash);
  for (const [name, value] of Object.entries(changes)) {
    if (value === "" || value == null) params.delete(name); else params.set(name, value);
  }
  const target = link(parts, Object.fromEntries(params));
  if (replace) {
    history.replaceState(null, "", target);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = target;
  }
}
