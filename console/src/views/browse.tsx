// browse: the names of a database, a level at a time, and what lies under one of them.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { change, useAddress } from "../address";
import { all, call, json, Problem } from "../api";
import { asText, encode, fromBase64, fromInput, inUrl, number, same, showName, size, toInput } from "../bytes";
import { Change, useChanges } from "../follow";
import { List } from "../list";
import { may, useShared } from "../state";
import { Choice, Dialog, download, Failure, Field, Text, useTask } from "../ui";
import { Value } from "../value";

const FIRST = 500;
const PAGE = 10000;
const VALUE_SHOWN = 1 << 20;

/** name in base64: a million of them are kept while somebody scrolls. */
interface Child {
  name: string;
  pairs: number;
  group: boolean;
  key: number;
}

interface Level {
  rows: Child[];
  next: string | null;
  open: boolean;
  error: unknown;
}

const EMPTY: Level = { rows: [], next: null, open: true, error: null };

/** The children of a prefix, page after page, as `more` asks for them. */
function useLevel(db: string, prefix: Uint8Array | null, by: string, from: string, again: number): [Level, () => void] {
  const [level, set] = useState<Level>(EMPTY);
  const current = useRef<{ control: AbortController; level: Level; busy: boolean }>();
  const view = [db, prefix && inUrl(prefix), by, from].join("\n");
  const key = view + "\n" + again;
  const before = useRef({ view: "", rows: 0 });
  const more = useCallback(async () => {
    const own = current.current;
    if (!own || own.busy || !own.level.open || !prefix) return;
    own.busy = true;
    try {
      const after = own.level.rows.length ? own.level.next! : from && inUrl(fromInput(from) ?? new Uint8Array());
      const params = { db, children: true, separator: by ? inUrl(encode(by)) : undefined, after, limit: own.level.rows.length ? PAGE : Math.max(FIRST, Math.min(PAGE, before.current.rows)) };
      const answer = await call("GET", "/pairs/" + inUrl(prefix), { params, signal: own.control.signal });
      const page = await all(answer, own.control.signal);
      const rows = own.level.rows;
      for (const line of page.lines) rows.push(line.prefix !== undefined ? { name: line.prefix, pairs: line.pairs, group: true, key: 0 } : { name: line.pair, pairs: 1, group: false, key: line.key });
      own.level = { rows, next: page.end.next, open: page.end.next !== null, error: null };
    } catch (error) {
      if (own.control.signal.aborted) return;
      own.level = { ...own.level, open: false, error };
    }
    own.busy = false;
    before.current.rows = own.level.rows.length;
    if (current.current === own) set(own.level);
  }, [key]);
  useEffect(() => {
    const own = { control: new AbortController(), level: { ...EMPTY, rows: [] }, busy: false };
    current.current = own;
    if (before.current.view !== view) { // read again, what is shown stays until the new rows are there
      before.current = { view, rows: 0 };
      set(own.level);
    }
    more();
    return () => own.control.abort();
  }, [key]);
  return [level, more];
}

function Crumbs({ prefix, by }: { prefix: Uint8Array; by: string }) {
  const parts: { text: string; prefix: string }[] = [{ text: "all names", prefix: "" }];
  const text = asText(prefix);
  const mark = by || ":";
  if (text !== null) {
    for (let at = text.indexOf(mark); at >= 0; at = text.indexOf(mark, at + mark.length)) {
      const end = at + mark.length;
      parts.push({ text: text.slice(parts.length > 1 ? encodedLength(parts) : 0, end), prefix: toInput(encode(text.slice(0, end))) });
    }
  }
  return (
    <nav aria-label="Levels" class="crumbs">
      {parts.map((part) => (
        <button key={part.prefix} type="button" class="link" onClick={() => change({ prefix: part.prefix, name: "", from: "" })}>
          {part.text}
        </button>
      ))}
    </nav>
  );
}
const encodedLength = (parts: { text: string }[]): number => parts.slice(1).reduce((sum, part) => sum + part.text.length, 0);

interface Shown {
  name: Uint8Array;
  key: number | null;
  bytes: Uint8Array;
  size: number;
  whole: boolean;
  tag?: string; // of this value, if it has one
  expires: number; // seconds since 1970; 0: it lasts
}

/** Has somebody else changed what a precondition was about? */
const isOther = (error: unknown): boolean => error instanceof Problem && error.status === 412;
const seconds = (expires: number): number => Math.max(1, Math.ceil(expires - Date.now() / 1000));

async function readValue(db: string, name: Uint8Array, signal: AbortSignal): Promise<Shown> {
  const path = "/pairs/" + inUrl(name);
  let answer: Response;
  try {
    answer = await call("GET", path, { params: { db, exact: true }, accept: "application/octet-stream", signal });
  } catch (error) {
    if (error instanceof Problem && error.code === "key_not_found") {
      const mapping = await json("GET", path, { params: { db, exact: true }, accept: "application/json", signal });
      return { name, key: mapping.key, bytes: new Uint8Array(), size: -1, whole: true, expires: 0 };
    }
    throw error;
  }
  const reader = answer.body!.getReader();
  const parts: Uint8Array[] = [];
  let got = 0;
  let done = false;
  while (got < VALUE_SHOWN) {
    const part = await reader.read();
    done = part.done;
    if (part.done) break;
    parts.push(part.value);
    got += part.value.length;
  }
  if (!done) reader.cancel().catch(() => undefined);
  const bytes = new Uint8Array(got);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  const length = answer.headers.get("Content-Encoding") ? 0 : Number(answer.headers.get("Content-Length") ?? 0);
  const key = answer.headers.get("Cheetah-Key");
  const tag = answer.headers.get("ETag") ?? undefined;
  const expires = Number(answer.headers.get("Cheetah-Expires") ?? 0);
  return { name, key: key === null ? null : Number(key), bytes, size: done ? got : Math.max(length, got), whole: done, tag, expires };
}

/** touched: how often it was changed by anybody since. */
function Pair({ name, changed, touched }: { name: Uint8Array; changed: () => void; touched: number }) {
  const shared = useShared();
  const task = useTask();
  const saving = useTask();
  const [shown, set] = useState<Shown | null>(null);
  const [draft, setDraft] = useState<string | null>(null);
  const [asking, setAsking] = useState(false);
  const path = "/pairs/" + inUrl(name);
  const load = () =>
    task.run(async (signal) => {
      set(null);
      setDraft(null);
      setOver(false);
      set(await readValue(shared.db, name, signal));
    });
  useEffect(() => {
    load();
  }, [path, shared.db]);
  useEffect(() => {
    if (touched && draft === null && !saving.busy) load();
  }, [touched]);
  const text = shown && shown.whole ? asText(shown.bytes) : null;
  const [over, setOver] = useState(false); // what others wrote since it was read is to be replaced
  const save = () =>
    saving.run(async (signal) => {
      const params = { db: shared.db, ttl: shown?.expires ? seconds(shown.expires) : undefined };
      try {
        await json("PUT", path, { params, body: draft ?? "", type: "application/octet-stream", over: over ? undefined : shown?.tag, signal });
      } catch (error) {
        setOver(isOther(error));
        throw error;
      }
      shared.say("saved");
      changed();
      load();
    });
  const remove = () =>
    saving.run(async (signal) => {
      await json("DELETE", path, { params: { db: shared.db, values: true }, signal });
      shared.say("deleted");
      setAsking(false);
      change({ name: "" }, true);
      changed();
    });
  const whole = () =>
    saving.run(async (signal) => {
      const answer = await call("GET", path, { params: { db: shared.db, exact: true }, accept: "application/octet-stream", signal });
      download(await answer.blob(), (asText(name) ?? "value").replace(/[^A-Za-z0-9._-]+/g, "_"));
    });
  return (
    <section class="panel" aria-label="Value">
      <h3>{showName(name)}</h3>
      <Failure error={task.error} />
      <Failure error={saving.error} />
      {touched > 0 && draft !== null && <p class="quiet" role="status">It has been changed meanwhile.</p>}
      {over && <p class="quiet" role="status">Somebody else has changed or deleted it since it was read: nothing was written. What they wrote is lost if you save over it.</p>}
      {task.busy && <p class="quiet">Reading…</p>}
      {shown && (
        <>
          <p class="quiet">
            key {shown.key} · {shown.size < 0 ? "it has no value" : size(shown.size)} {!shown.whole && `· the first ${size(shown.bytes.length)} are shown`}
            {shown.expires > 0 && `· until ${new Date(shown.expires * 1000).toLocaleString()}`}
          </p>
          {shown.size >= 0 && draft === null && <Value name={shown.name} bytes={shown.bytes} whole={shown.whole} />}
          {draft !== null && (
            <Field label="Value as text" wide>
              <textarea rows={10} value={draft} onInput={(event) => setDraft(event.currentTarget.value)} />
            </Field>
          )}
          <p class="buttons">
            {shown.size >= 0 && (
              <button type="button" onClick={whole} disabled={saving.busy}>
                Download the value
              </button>
            )}
            {may(shared, "write") && draft === null && (text !== null || shown.size < 0) && (
              <button type="button" onClick={() => setDraft(text ?? "")}>
                Edit the value
              </button>
            )}
            {may(shared, "write") && draft !== null && (
              <>
                <button type="button" class="primary" onClick={save} disabled={saving.busy || draft === ""}>
                  {over ? "Save over it" : "Save the value"}
                </button>
                <button type="button" onClick={() => (over || touched ? load() : setDraft(null))}>
                  Leave it as it was
                </button>
              </>
            )}
            {may(shared, "write") && (
              <button type="button" class="danger" onClick={() => setAsking(true)}>
                Delete this pair
              </button>
            )}
          </p>
        </>
      )}
      {asking && (
        <Dialog title="Delete this pair and its value?" close={() => setAsking(false)}>
          <p>
            <code>{showName(name)}</code> is deleted for everybody. There is no way back.
          </p>
          <p class="buttons">
            <button type="button" class="danger" onClick={remove} disabled={saving.busy}>
              Delete it
            </button>
            <button type="button" onClick={() => setAsking(false)}>
              Keep it
            </button>
          </p>
        </Dialog>
      )}
    </section>
  );
}

function Changes({ changes, live, error }: { changes: Change[]; live: boolean; error: unknown }) {
  const what = (change: Change) => (change.recursive ? "all under it deleted" : change.deleted ? "deleted" : "put");
  return (
    <section class="panel" aria-label="Changes">
      <h3>Changes</h3>
      <p class="quiet" aria-live="polite">
        {live ? (changes.length ? "What was changed by anybody, the newest first." : "Nothing has changed yet.") : "Not following."}
      </p>
      <Failure error={error} />
      {changes.length > 0 && (
        <table>
          <thead>
            <tr>
              <th scope="col">Time</th>
              <th scope="col">What</th>
              <th scope="col">Name</th>
            </tr>
          </thead>
          <tbody>
            {changes.map((one) => (
              <tr key={one.id}>
                <td>{one.at.toLocaleTimeString()}</td>
                <td>{what(one)}</td>
                <td>
                  {one.name === null ? (
                    `the value of key ${one.key}`
                  ) : one.deleted ? (
                    showName(one.name)
                  ) : (
                    <button type="button" class="link" onClick={() => change({ name: toInput(one.name!) })}>
                      {showName(one.name)}
                    </button>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

function NewPair({ close, made }: { close: () => void; made: (name: string) => void }) {
  const shared = useShared();
  const task = useTask();
  const [name, setName] = useState("");
  const [value, setValue] = useState("");
  const [there, setThere] = useState(""); // the name that was found to be taken
  const bytes = fromInput(name);
  const submit = (event: Event) => {
    event.preventDefault();
    task.run(async (signal) => {
      try {
        const over = there === name ? undefined : null;
        await json("PUT", "/pairs/" + inUrl(bytes!), { params: { db: shared.db }, body: value, type: "application/octet-stream", over, signal });
      } catch (error) {
        if (isOther(error)) setThere(name);
        throw error;
      }
      shared.say("stored");
      made(name);
      if (!shared.databases.includes(shared.db)) shared.refresh();
    });
  };
  return (
    <Dialog title="Store a value under a name" close={close}>
      <form onSubmit={submit}>
        <Field label="Name" hint="text, or x and hexadecimal" wide>
          <Text value={name} set={setName} required aria-invalid={bytes === null} />
        </Field>
        <Field label="Value" hint="text" wide>
          <textarea rows={6} required value={value} onInput={(event) => setValue(event.currentTarget.value)} />
        </Field>
        {there !== "" && there === name ? <p role="status">This name has a value already, which is lost if you replace it.</p> : <Failure error={task.error} />}
        <p class="buttons">
          <button type="submit" class="primary" disabled={task.busy || !bytes?.length || value === ""}>
            {there !== "" && there === name ? "Replace it" : "Store it"}
          </button>
          <button type="button" onClick={close}>
            Cancel
          </button>
        </p>
      </form>
    </Dialog>
  );
}

export function Browse() {
  const shared = useShared();
  const { params } = useAddress();
  const [typed, setTyped] = useState(params.prefix ?? "");
  const [from, setFrom] = useState(params.from ?? "");
  const [count, setCount] = useState<number | null>(null);
  const [again, setAgain] = useState(0);
  const [making, setMaking] = useState(false);
  const by = params.by ?? ":";
  const prefix = fromInput(params.prefix ?? "");
  const name = params.name ? fromInput(params.name) : null;
  const [level, more] = useLevel(shared.db, prefix, by === "byte" ? "" : by, params.from ?? "", again);
  const path = prefix && inUrl(prefix);
  useEffect(() => setTyped(params.prefix ?? ""), [params.prefix]);
  useEffect(() => setFrom(params.from ?? ""), [params.from]);
  useEffect(() => {
    setCount(null);
    if (path === null) return;
    const control = new AbortController();
    json("GET", "/pairs/" + path, { params: { db: shared.db, count: true }, signal: control.signal })
      .then((answer) => setCount(answer.pairs))
      .catch(() => undefined); // the list says what is wrong
    return () => control.abort();
  }, [path, shared.db, again]);
  const following = params.follow === "1";
  const nameKey = name ? inUrl(name) : "";
  const [touched, setTouched] = useState({ key: "", times: 0 });
  const [stored, setStored] = useState(0); // how often "New pair" did: what is shown may be one of them
  const followed = useChanges(shared.db, prefix, following, (some) => {
    setAgain((n) => n + 1);
    const own = some?.some((one) => one.name === null || (one.recursive ? !one.name.length || nameKey.startsWith(inUrl(one.name)) : inUrl(one.name) === nameKey));
    if (own && nameKey) setTouched((old) => ({ key: nameKey, times: old.key === nameKey ? old.times + 1 : 1 }));
  });
  const most = Math.max(1, ...level.rows.slice(0, 2000).map((row) => row.pairs));
  const choose = (index: number) => {
    const row = level.rows[index];
    const bytes = toInput(fromBase64(row.name));
    change(row.group ? { prefix: bytes, name: "", from: "" } : { name: bytes });
  };
  const chosen = name ? level.rows.findIndex((row) => !row.group && same(fromBase64(row.name), name)) : -1;
  const changed = () => setAgain((n) => n + 1);
  return (
    <>
      <form
        class="inline"
        onSubmit={(event) => {
          event.preventDefault();
          change({ prefix: typed === "*" ? "" : typed, name: "", from });
        }}
      >
        <Field label="Prefix" hint="text, or x and hexadecimal">
          <Text value={typed} set={setTyped} aria-invalid={fromInput(typed) === null} />
        </Field>
        <Field label="Grouped by">
          <Choice value={by} set={(value) => change({ by: value === ":" ? "" : value, from: "" })} options={[[":", "colon"], ["/", "slash"], [".", "dot"], ["byte", "next byte"]]} />
        </Field>
        <Field label="Go on after" hint="a name">
          <Text value={from} set={setFrom} />
        </Field>
        <button type="submit" class="primary">
          Show
        </button>
        <button type="button" onClick={changed}>
          Read again
        </button>
        <button type="button" aria-pressed={following} onClick={() => change({ follow: following ? "" : "1" })}>
          Follow changes
        </button>
        {may(shared, "write") && (
          <button type="button" onClick={() => setMaking(true)}>
            New pair
          </button>
        )}
      </form>
      {prefix === null ? (
        <Failure error={new Problem(0, "invalid_hex", "what starts with x is hexadecimal with an even number of digits")} />
      ) : (
        <>
          <Crumbs prefix={prefix} by={by === "byte" ? "" : by} />
          <p class="quiet" aria-live="polite">
            {count === null ? "…" : number(count)} pairs under {prefix.length ? showName(prefix) : "all names"}
            {count !== null && ` · ${number(level.rows.length)}${level.open ? " and more" : ""} at this level`}
          </p>
          <Failure error={level.error} />
          <div class={name ? "two" : "one"}>
            <List
              label="Names"
              count={level.rows.length}
              open={level.open}
              more={more}
              chosen={chosen}
              choose={choose}
              empty={level.error ? "Nothing could be read." : "There are no names under this prefix."}
              row={(index) => {
                const row = level.rows[index];
                return (
                  <>
                    <span class={row.group ? "name group" : "name"}>{showName(fromBase64(row.name))}</span>
                    {row.group ? (
                      <span class="count">
                        <span class="bar" aria-hidden="true">
                          <span style={{ width: (100 * row.pairs) / most + "%" }} />
                        </span>
                        {number(row.pairs)}
                        <span class="hidden"> pairs, open</span>
                      </span>
                    ) : (
                      <span class="count quiet">key {row.key}</span>
                    )}
                  </>
                );
              }}
            />
            {name && <Pair key={stored} name={name} changed={changed} touched={touched.key === nameKey ? touched.times : 0} />}
          </div>
          {following && <Changes {...followed} />}
        </>
      )}
      {making && (
        <NewPair
          close={() => setMaking(false)}
          made={(made) => {
            setMaking(false);
            changed();
            setStored(stored + 1);
            change({ name: made });
          }}
        />
      )}
    </>
  );
}
