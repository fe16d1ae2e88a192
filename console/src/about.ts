// about: what model a database keeps, so that only what it answers is offered.
import { useEffect, useState } from "preact/hooks";
import { json } from "./api";

export interface About {
  /** It answers exactly: a live model, or one that was read in. */
  exact: boolean;
  live: boolean;
  fixed: boolean;
  /** Are counts kept, and contexts with them? */
  counts: boolean;
  contexts: boolean;
}

const PLAIN: About = { exact: false, live: false, fixed: false, counts: true, contexts: true };

/** null until it is known; of a database that is not there, what a new one is. */
export function useAbout(db: string, again = 0): About | null {
  const [about, set] = useState<About | null>(null);
  useEffect(() => {
    const control = new AbortController();
    json("GET", "/databases/" + encodeURIComponent(db), { signal: control.signal })
      .then((answer) => {
        const keep: string[] | null = answer.live ? answer.live.keep : answer.fixed ? [] : null;
        set({
          exact: Boolean(answer.live || answer.fixed),
          live: Boolean(answer.live),
          fixed: Boolean(answer.fixed),
          counts: keep === null || keep.includes("cnt"),
          contexts: keep === null || ["cnt", "ctx", "ctxv"].every((name) => keep.includes(name)),
        });
      })
      .catch(() => !control.signal.aborted && set(PLAIN)); // whoever asks it something is told why not
    return () => control.abort();
  }, [db, again]);
  return about;
}
