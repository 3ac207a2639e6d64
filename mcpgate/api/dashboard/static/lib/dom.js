// The view library: htm's templates over preact. Text goes into text nodes only; nothing here sets innerHTML.
import { h, render, createContext, Component } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

export const html = htm.bind(h);
export { h, render, createContext, Component };
export {
  useState, useEffect, useLayoutEffect, useRef, useMemo, useCallback, useContext, useId,
} from "../vendor/preact-hooks.js";
