// learn: counting documents, and smoothing what is counted, with its progress.
import { useEffect, useState } from "preact/hooks";
import { useAbout } from "../about";
import { all, call, json, lines, type Line, Problem } from "../api";
import { hex, number } from "../bytes";
import { may, useShared } from "../state";
import { Bar, Choice, Failure, Field, Text, useTask } from "../ui";
import { hasWords, useWords } from "../words";
import { tokensOf } from "./model";

/** For once=: a browser sends a request again by itself if a connection that was used before ends without an answer. */
function identifier(): string {
  return hex(crypto.getRandomValues(new Uint8Array(16)));
}

/** Each line is a document: JSON as the call takes it, or words, or tokens with blanks between them. */
export function toLines(text: string, words: boolean): string {
  const out: string[] = [];
  text.split("\n").forEach((line, i) => {
    const trimmed = line.trim();
    if (trimmed === "") return;
    if (trimmed.startsWith("{")) {
      out.push(trimmed);
      return;
    }
    if (words) {
      out.push(JSON.stringify({ text: trimmed }));
      return;
    }
    const tokens = tokensOf(trimmed);
    if (tokens instanceof Problem) throw new Problem(0, tokens.code, `line ${i + 1}: ${tokens.detail}`);
    out.push(JSON.stringify({ tokens }));
  });
  return out.join("\n") + "\n";
}

function Count({ done, live }: { done: () => void; live: boolean }) {
  const shared = useShared();
  const task = useTask();
  const [text, setText] = useState("");
  const [file, setFile] = useState<File | null>(null);
  const [order, setOrder] = useState("3");
  const [away, setAway] = useState(false);
  const speaks = hasWords(shared);
  const [kind, setKind] = useState("words");
  const words = speaks && kind === "words";
  const [counted, setCounted] = useState<Line | null>(null);
  const submit = (event: Event) => {
    event.preventDefault();
    task.run(async (signal) => {
      setCounted(null);
      const body: BodyInit = file ?? toLines(text, words);
      setCounted(await json("POST", "/ngrams", { params: { db: shared.db, order: live ? undefined : order, once: identifier(), remove: away || undefined, text: words || undefined }, body, type: "application/x-ndjson", signal }));
      shared.say("counted");
      if (!shared.databases.includes(shared.db)) shared.refresh();
      done();
    });
  };
  return (
    <section class="panel">
      <h3>Count n-grams</h3>
      <form onSubmit={submit}>
        <Field label="Documents" hint={`one a line: ${words ? "words" : "tokens"} with blanks between them, or JSON`} wide>
          <textarea rows={6} value={text} disabled={file !== null} onInput={(event) => setText(event.currentTarget.value)} placeholder={words ? "to be or not to be\nthat is the question" : "2 4 5 6 3\n2 4 7 3"} />
        </Field>
        <Field label="Or a file" hint="NDJSON, sent as it is" wide>
          <input type="file" onChange={(event) => setFile(event.currentTarget.files?.[0] ?? null)} />
        </Field>
        <div class="inline">
          {speaks && (
            <Field label="Documents are">
              <Choice value={kind} set={setKind} options={["words", "tokens"]} />
            </Field>
          )}
          <Field label="Orders 1 to">
            {live ? <Choice value="" set={() => undefined} options={[["", "the model's own"]]} /> : <Choice value={order} set={setOrder} options={["1", "2", "3", "4", "5", "6", "7", "8"]} />}
          </Field>
          <label class="check">
            <input type="checkbox" checked={away} onChange={(event) => setAway(event.currentTarget.checked)} /> take them away again
          </label>
          <button type="submit" class="primary" disabled={task.busy || (!file && text.trim() === "")}>
            {away ? "Take away" : "Count"}
          </button>
          {task.busy && (
            <button type="button" onClick={task.stop}>
              Cancel
            </button>
          )}
        </div>
      </form>
      <Failure error={task.error} />
      {task.busy && <p class="quiet">Counting, in one commit…</p>}
      {counted && (
        <dl class="figures" aria-label="Counted">
          {Object.entries(counted).map(([name, value]) => (
            <div key={name}>
              <dt>{name.replace(/_/g, " ")}</dt>
              <dd>{typeof value === "number" ? number(value) : String(value)}</dd>
            </div>
          ))}
        </dl>
      )}
    </section>
  );
}

interface Phase {
  phase: string;
  done: number;
  total: number;
}

function Smooth({ done }: { done: () => void }) {
  const shared = useShared();
  const task = useTask();
  const [orders, setOrders] = useState("");
  const [topk, setTopk] = useState("20");
  const [phases, setPhases] = useState<Phase[]>([]);
  const [results, setResults] = useState<Line[]>([]);
  const [end, setEnd] = useState<Line | null>(null);
  const submit = (event: Event) => {
    event.preventDefault();
    task.run(async (signal) => {
      setPhases([]);
      setResults([]);
      setEnd(null);
      const answer = await call("POST", "/reduce/smooth/cnt:", { params: { db: shared.db, orders: orders || undefined, topk }, signal });
      const source = lines(answer, signal);
      for (;;) {
        const step = await source.next();
        if (step.done) {
          setEnd(step.value);
          break;
        }
        const line = step.value;
        if (line.progress) setPhases((old) => [...old.filter((one) => one.phase !== line.progress.phase), line.progress]);
        else setResults((old) => [...old, line]);
      }
      shared.say("smoothed");
      done();
    });
  };
  return (
    <section class="panel">
      <h3>Smooth</h3>
      <p class="quiet">Modified Kneser-Ney from the counts into probabilities, continuations and best followers.</p>
      <form class="inline" onSubmit={submit}>
        <Field label="Orders" hint="1-3 or 2; empty: all">
          <Text value={orders} set={setOrders} pattern="[0-9]+(-[0-9]+)?" />
        </Field>
        <Field label="Best followers kept">
          <Text type="number" min="1" max="32" value={topk} set={setTopk} />
        </Field>
        <button type="submit" class="primary" disabled={task.busy}>
          Smooth
        </button>
        {task.busy && (
          <button type="button" onClick={task.stop}>
            Cancel
          </button>
        )}
      </form>
      <Failure error={task.error} />
      {phases.map((one) => (
        <p key={one.phase} class="phase">
          <label>
            {one.phase}: {number(one.done)} of {number(one.total)}
            <progress value={one.done} max={Math.max(1, one.total)} />
          </label>
        </p>
      ))}
      {results.length > 0 && (
        <table aria-label="Smoothed">
          <thead>
            <tr>
              {["order", "contexts", "types", "D1", "D2", "D3"].map((text) => (
                <th key={text} scope="col">
                  {text}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {results.map((line) => (
              <tr key={line.order}>
                <td>{line.order}</td>
                <td>{number(line.contexts)}</td>
                <td>{number(line.types)}</td>
                <td>{line.d1.toFixed(3)}</td>
                <td>{line.d2.toFixed(3)}</td>
                <td>{line.d3.toFixed(3)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {end && <p class="quiet">Done{end.malformed ? `; ${number(end.malformed)} payloads could not be read and were passed over` : ""}.</p>}
    </section>
  );
}

/** The most frequent tokens, and how the counts of each order are distributed. */
function Counted({ again }: { again: number }) {
  const shared = useShared();
  const task = useTask();
  const [tokens, setTokens] = useState<Line[]>([]);
  const words = useWords(tokens.map((line) => line.token));
  useEffect(() => {
    task.run(async (signal) => {
      const answer = await call("GET", "/reduce/totals/cnt:1:", { params: { db: shared.db, sort: "count", limit: 15 }, signal });
      setTokens((await all(answer, signal)).lines.filter((line) => line.token !== undefined));
    });
  }, [shared.db, again]);
  return (
    <section class="panel">
      <h3>Most frequent tokens</h3>
      <Failure error={task.error} />
      {tokens.length ? (
        <table>
          <thead>
            <tr>
              <th scope="col">token</th>
              <th scope="col">count</th>
              <th scope="col" class="grow">
                <span class="hidden">bar</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {tokens.map((line) => (
              <tr key={line.token}>
                <td>{words.has(line.token) ? `${words.get(line.token)} (${line.token})` : line.token}</td>
                <td>{number(line.count)}</td>
                <td class="grow">
                  <Bar part={line.count / tokens[0].count} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : (
        !task.busy && !task.error && <p class="quiet">Nothing is counted yet.</p>
      )}
    </section>
  );
}

export function Learn() {
  const shared = useShared();
  const [again, set] = useState(0);
  const done = () => set((n) => n + 1);
  const about = useAbout(shared.db, again);
  if (!about) return <p class="quiet">Asking the server…</p>;
  return (
    <div class="cards">
      {may(shared, "write") && !about.fixed && <Count done={done} live={about.live} />}
      {may(shared, "write") && about.counts && <Smooth done={done} />}
      {about.counts && <Counted again={again} />}
      {about.live && <p class="quiet">The live model is in step with every count: nothing needs to be smoothed for it.</p>}
      {about.fixed && <p class="quiet">The model of this database was read in as a whole: nothing is counted into it.</p>}
    </div>
  );
}
