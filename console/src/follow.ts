// follow: what changes under a prefix, as the server tells it, while somebody looks: not while the tab is hidden.
import { useEffect, useRef, useState } from "preact/hooks";
import { call, lines, Problem } from "./api";
import { fromBase64, inUrl } from "./bytes";

/** name: null if a value changed by its key. */
export interface Change {
  id: number;
  at: Date;
  name: Uint8Array | null;
  key: number | null;
  deleted: boolean;
  recursive: boolean;
}

export interface Following {
  live: boolean;
  changes: Change[];
  error: unknown;
}

const KEPT = 50; // the newest ones
const WAIT = 300; // seconds of one request
const PAUSE = 2000; // after a failure
const CALM = 400; // at most so often `changed` is called, in ms

let ids = 0;

const sleep = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((done) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), done()));
  });

/** While `on`, `changed` is called with what has changed since the last call; first, and after a gap, with null: everything may have. */
export function useChanges(db: string, prefix: Uint8Array | null, on: boolean, changed: (some: Change[] | null) => void): Following {
  const [state, set] = useState<Following>({ live: false, changes: [], error: null });
  const tell = useRef(changed);
  tell.current = changed;
  const path = prefix && inUrl(prefix);
  const [hidden, setHidden] = useState(document.hidden);
  useEffect(() => {
    const look = () => setHidden(document.hidden);
    document.addEventListener("visibilitychange", look);
    return () => document.removeEventListener("visibilitychange", look);
  }, []);
  useEffect(() => {
    if (!on) set({ live: false, changes: [], error: null });
    if (!on || path === null || hidden) return;
    const control = new AbortController();
    const signal = control.signal;
    let fresh: Change[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;
    const flush = () => {
      timer = undefined;
      if (signal.aborted) return;
      const some = fresh;
      fresh = [];
      set((old) => ({ ...old, changes: [...some.slice().reverse(), ...old.changes].slice(0, KEPT) }));
      tell.current(some);
    };
    const follow = async (after: number): Promise<number> => {
      const answer = await call("GET", "/changes/" + path, { params: { db, after, wait: WAIT }, signal });
      const source = lines(answer, signal);
      for (;;) {
        const step = await source.next();
        if (step.done) return step.value.next;
        const line = step.value;
        if (line.progress) continue;
        const name = line.pair === null ? null : fromBase64(line.pair);
        fresh.push({ id: ids++, at: new Date(), name, key: line.key, deleted: line.deleted, recursive: line.recursive === true });
        if (fresh.length > 10 * KEPT) fresh.splice(0, fresh.length - KEPT);
        timer = timer ?? setTimeout(flush, CALM);
      }
    };
    const run = async () => {
      let after: number | null = null;
      while (!signal.aborted) {
        try {
          if (after === null) {
            after = await now(db, path, signal);
            set((old) => ({ ...old, live: true, error: null }));
            tell.current(null); // what was before is read now
          }
          after = await follow(after);
        } catch (error) {
          if (signal.aborted) return;
          after = null; // gone, or cut off: from now on, and all is read again
          const gone = error instanceof Problem && error.code === "gone";
          set((old) => ({ ...old, live: gone && old.live, error: gone ? null : error }));
          if (!gone) await sleep(PAUSE, signal);
        }
      }
    };
    run();
    return () => {
      control.abort();
      clearTimeout(timer);
      set((old) => ({ ...old, live: false }));
    };
  }, [db, path, on, hidden]);
  return state;
}

async function now(db: string, path: string, signal: AbortSignal): Promise<number> {
  const answer = await call("GET", "/changes/" + path, { params: { db, after: "now" }, signal });
  const source = lines(answer, signal);
  for (;;) {
    const step = await source.next();
    if (step.done) return step.value.next;
  }
}
