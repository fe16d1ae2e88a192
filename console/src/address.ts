// address: what is open, in the fragment of the address, so that a reload, a bookmark and the back button keep it: #/view?name=value&...
import { useEffect, useState } from "preact/hooks";

export interface Address {
  view: string;
  params: { [name: string]: string };
}

export function read(): Address {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?", 2);
  return { view: path || "start", params: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

export function write(address: Address): string {
  const query = new URLSearchParams(Object.entries(address.params).filter(([, value]) => value !== ""));
  const text = query.toString();
  return "#/" + address.view + (text ? "?" + text : "");
}

/** Changes some parameters of this view; an empty text takes one away. replace: without a step in the history. */
export function change(params: { [name: string]: string }, replace = false): void {
  const now = read();
  go({ view: now.view, params: { ...now.params, ...params } }, replace);
}

export function go(address: Address, replace = false): void {
  const text = write(address);
  if (text === location.hash) return;
  if (replace) {
    history.replaceState(null, "", text);
    window.dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = text;
  }
}

/** What goes along from view to view. */
export function keep(address: Address): { [name: string]: string } {
  const kept: { [name: string]: string } = {};
  for (const name of ["db", "tour"]) if (address.params[name]) kept[name] = address.params[name];
  return kept;
}

export function useAddress(): Address {
  const [address, set] = useState(read);
  useEffect(() => {
    const changed = () => set(read());
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);
  return address;
}
