// model: what comes next, how likely a text is, which contexts are alike, what belongs together.
import { useEffect, useState } from "preact/hooks";
import { useAbout } from "../about";
import { change, useAddress } from "../address";
import { all, call, json, jsonBody, Problem, type Line } from "../api";
import { fromBase64, hex, inUrl, encode, showName, toBase64 } from "../bytes";
import { decode } from "../payload";
import { useShared } from "../state";
import { Bar, Choice, Failure, Field, Text, useTask } from "../ui";
import { hasWords, tokensOfWords, useWords, wordsOf } from "../words";

const MODES: [string, string][] = [
  ["", "as the database answers"],
  ["deepest", "deepest context"],
  ["levels", "all levels"],
  ["blend", "blend of all orders"],
];

/** The tokens that were typed, or why they are none. */
export function tokensOf(text: string): number[] | Problem {
  const parts = text.split(/[\s,]+/).filter((part) => part !== "");
  const bad = parts.find((part) => !/^\d{1,10}$/.test(part) || Number(part) > 0xffffffff);
  if (bad !== undefined) return new Problem(0, "invalid_tokens", `"${bad}" is no token: tokens are numbers from 0 to 4294967295`);
  return parts.map(Number);
}

function Prediction({ answer, add }: { answer: Line; add: (part: string) => void }) {
  const best = answer.candidates[0]?.p ?? 1;
  const worded = answer.candidates.some((one: Line) => one.word !== undefined);
  return (
    <section class="panel" aria-label={"Candidates of order " + answer.order}>
      <h3>
        {answer.order === null ? "No context was seen" : `Order ${answer.order}`}
        <small>{answer.context.length ? ` after ${answer.context.join(" ")}` : " with no context"}</small>
      </h3>
      {answer.candidates.length ? (
        <table>
          <thead>
            <tr>
              <th scope="col">{worded ? "word" : "token"}</th>
              <th scope="col">p</th>
              <th scope="col" class="grow">
                <span class="hidden">bar</span>
              </th>
              {answer.candidates[0].order !== undefined && <th scope="col">order</th>}
            </tr>
          </thead>
          <tbody>
            {answer.candidates.map((candidate: Line) => (
              <tr key={candidate.token}>
                <td>
                  {worded && typeof candidate.word !== "string" ? (
                    <span class="quiet">token {candidate.token}</span>
                  ) : (
                    <button type="button" class="link" onClick={() => add(String(candidate.word ?? candidate.token))} aria-label={`Go on with ${worded ? "word " + candidate.word : "token " + candidate.token}`}>
                      {candidate.word ?? candidate.token}
                    </button>
                  )}
                </td>
                <td>{candidate.p.toPrecision(3)}</td>
                <td class="grow">
                  <Bar part={candidate.p / best} />
                </td>
                {candidate.order !== undefined && <td>{candidate.order}</td>}
              </tr>
            ))}
          </tbody>
        </table>
      ) : (
        <p class="quiet">There is no candidate.</p>
      )}
    </section>
  );
}

/** Six shades from unlikely to likely; the numbers stand beside them. */
const shade = (log10: number): number => Math.max(0, Math.min(5, Math.round(5 + log10 * 1.6)));

function Score({ parts, answer }: { parts: (string | number)[]; answer: Line }) {
  const values: (number | Line)[] = answer.per_token;
  const names: (string | number | null)[] = answer.words ? [...parts.slice(0, Math.max(0, parts.length - values.length)), ...answer.words] : parts;
  const shift = names.length - values.length;
  return (
    <section class="panel" aria-label="Score">
      <h3>Score</h3>
      <dl class="figures">
        <div>
          <dt>log10</dt>
          <dd>{answer.log10.toFixed(3)}</dd>
        </div>
        {typeof answer.perplexity === "number" && (
          <div>
            <dt>Perplexity</dt>
            <dd>{answer.perplexity.toFixed(2)}</dd>
          </div>
        )}
        {answer.oov !== undefined && (
          <div>
            <dt>Unknown</dt>
            <dd>{answer.oov}</dd>
          </div>
        )}
      </dl>
      <ol class="scored">
        {names.map((part, i) => {
          const value = values[i - shift];
          const order = answer.orders?.[i - shift];
          const log10 = typeof value === "number" ? value : null;
          return (
            <li key={i} class={log10 === null ? "" : "shade" + shade(log10)}>
              <b>{part ?? "?"}</b>
              <small>{log10 === null ? "given" : log10.toFixed(2)}</small>
              <small>{order === undefined ? "" : order === 0 ? "nowhere" : "order " + order}</small>
            </li>
          );
        })}
      </ol>
      <p class="quiet">From red, unlikely, to green, likely; the number is the logarithm of the probability.</p>
    </section>
  );
}

interface Alike {
  name: string;
  tokens: number[] | null;
  score: number;
}

/** The words of contexts, if they have some. */
function Context({ tokens, words }: { tokens: number[]; words: Map<number, string> }) {
  return <>{tokens.map((token) => words.get(token) ?? token).join(" ")}</>;
}

/** The pair of a context's counts: its hash is found by its vector. */
async function countsOf(db: string, context: number[], signal: AbortSignal): Promise<Uint8Array> {
  let hash = "__root__";
  if (context.length) {
    const found = await all(await call("POST", "/contexts", { params: { db }, signal, ...jsonBody({ tree: context.map((token) => [token]), limit: 1 }) }), signal);
    const line = found.lines[0];
    if (!line || line.tokens.length !== context.length) throw new Problem(404, "context_not_found", `${context.join(" ")} was never counted as a context`);
    hash = line.hash;
  }
  const bytes = hash === "__root__" ? encode(hash) : Uint8Array.from(hash.match(/../g)!.map((byte: string) => parseInt(byte, 16)));
  return new Uint8Array([...encode(`cnt:${context.length + 1}:`), ...bytes]);
}

/** What belongs together: a context's links and followers, and the rows and columns of its last token. */
async function related(db: string, context: number[], worded: boolean, signal: AbortSignal): Promise<Line[]> {
  const ask = { params: { db, k: 10, text: worded || undefined }, signal };
  const found: Line[] = [];
  if (context.length) found.push(...(await all(await call("GET", "/reduce/associations/" + context[context.length - 1], ask), signal)).lines);
  const pair = await countsOf(db, context, signal);
  const links = (await all(await call("GET", "/reduce/associations/" + inUrl(pair), ask), signal)).lines;
  const names = links.filter((line) => line.relation === "link").map((line) => nameIn(line));
  const shown = new Map<string, string>();
  for (const name of names) {
    const at = name.indexOf(58, 4); // cnt:<n>:
    const value = at < 0 ? null : await call("POST", "/pairs", { params: { db, values: true }, signal, ...jsonBody({ pairs: [toBase64(new Uint8Array([...encode("ctx:"), ...name.subarray(at + 1)]))] }) });
    const line = value && (await all(value, signal)).lines[0];
    const context = line?.value ? decode(encode("ctx:"), fromBase64(line.value), true) : null;
    const tokens = context?.kind === "context" ? context.tokens : null;
    const words = worded && tokens ? await wordsOf(db, tokens, signal) : new Map<number, string>();
    shown.set(hex(name), tokens ? tokens.map((token) => words.get(token) ?? token).join(" ") || "the empty context" : showName(name));
  }
  return [...found, ...links.map((line) => (line.relation === "link" ? { ...line, what: shown.get(hex(nameIn(line))) } : line))];
}

/** A name of an answer, in base64 or, with text=true, as text. */
const nameIn = (line: Line): Uint8Array => (typeof line.pair === "string" ? fromBase64(line.pair) : encode(line.name));

const RELATIONS: { [relation: string]: string } = { link: "related context", after: "comes after it", before: "comes before it" };

function Related({ lines }: { lines: Line[] }) {
  return (
    <section class="panel" aria-label="What belongs together">
      <h3>What belongs together</h3>
      {lines.length ? (
        <table>
          <thead>
            <tr>
              <th scope="col">relation</th>
              <th scope="col">by</th>
              <th scope="col">what</th>
              <th scope="col">weight</th>
            </tr>
          </thead>
          <tbody>
            {lines.map((line, i) => (
              <tr key={i}>
                <td>
                  {RELATIONS[line.relation] ?? line.relation}
                  {line.order > 2 && <small> at {line.order - 1} places</small>}
                </td>
                <td>{line.metric}</td>
                <td>{line.what ?? line.word ?? line.token}</td>
                <td>{Number(line.weight.toPrecision(4))}</td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : (
        <p class="quiet">Nothing is kept of it: POST /reduce/links/cnt: and /reduce/matrix/cnt: find it.</p>
      )}
    </section>
  );
}

/** Contexts that are followed alike: the counts most similar to its own, then their tokens. */
async function similar(db: string, context: number[], signal: AbortSignal): Promise<Alike[]> {
  const params = { db };
  const space = encode(`cnt:${context.length + 1}:`);
  const to = await countsOf(db, context, signal);
  const answer = await call("GET", "/reduce/similar/" + inUrl(space), { params: { ...params, to: inUrl(to), limit: 10 }, signal });
  const lines = (await all(answer, signal)).lines.filter((line) => line.pair !== undefined);
  if (!lines.length) return [];
  const suffixes = lines.map((line) => fromBase64(line.pair).subarray(space.length));
  const names = suffixes.map((suffix) => btoa(String.fromCharCode(...encode("ctx:"), ...suffix)));
  const contexts = (await all(await call("POST", "/pairs", { params: { ...params, values: true }, signal, ...jsonBody({ pairs: names }) }), signal)).lines;
  return lines.map((line, i) => {
    const value = contexts[i]?.value ? decode(encode("ctx:"), fromBase64(contexts[i].value), true) : null;
    return { name: hex(suffixes[i]), tokens: value?.kind === "context" ? value.tokens : null, score: line.score };
  });
}

export function Model() {
  const shared = useShared();
  const { params } = useAddress();
  const [typed, setTyped] = useState(params.q ?? "");
  const task = useTask();
  const [predictions, setPredictions] = useState<Line[]>([]);
  const [score, setScore] = useState<{ parts: (string | number)[]; answer: Line } | null>(null);
  const [alike, setAlike] = useState<{ tokens: number[]; found: Alike[] } | null>(null);
  const [belongs, setBelongs] = useState<Line[] | null>(null);
  const about = useAbout(shared.db);
  const modes = about?.exact ? MODES.filter(([value]) => value === "" || (value === "levels" && about.live)) : MODES;
  const mode = modes.some(([value]) => value === params.mode) ? params.mode : "";
  const doing = params.do ?? "predict";
  const speaks = hasWords(shared);
  const as = params.as ?? "";
  const q = params.q ?? "";
  const worded = speaks && (as === "words" || (as === "" && !/^[\d\s,]*$/.test(q)));
  const words = useWords(alike ? [...alike.tokens, ...alike.found.flatMap((one) => one.tokens ?? [])] : []);
  useEffect(() => setTyped(params.q ?? ""), [params.q]);
  useEffect(() => {
    setPredictions([]);
    setScore(null);
    setAlike(null);
    setBelongs(null);
    task.clear();
    if (params.q === undefined) return;
    task.run(async (signal) => {
      if (!shared.contract || !about) return; // they say whether words are spoken, and which model answers
      const tokens = worded ? [] : tokensOf(q);
      if (tokens instanceof Problem) throw tokens;
      const parts = worded ? q.split(/\s+/).filter((part) => part !== "") : tokens;
      const ask = { params: { db: shared.db, text: worded || undefined }, signal };
      const question: { [key: string]: any } = worded ? { text: q.trim() } : { tokens };
      if (doing === "score") {
        const body = { ...question };
        if (mode === "deepest" || mode === "blend") body.mode = mode;
        setScore({ parts, answer: await json("POST", "/score", { ...ask, ...jsonBody(body) }) });
      } else if (doing === "similar" || doing === "related") {
        const order = Math.max(1, Number(params.order ?? 3));
        const typedContext = order > 1 ? parts.slice(-(order - 1)) : [];
        const context = worded ? await tokensOfWords(shared.db, typedContext as string[], signal) : typedContext;
        const unknown = context.indexOf(null as never);
        if (unknown >= 0) throw new Problem(404, "unknown_word", `"${typedContext[unknown]}" is not in the vocabulary of ${shared.db}`);
        if (doing === "related") setBelongs(await related(shared.db, context as number[], speaks && as !== "tokens", signal));
        else setAlike({ tokens: context as number[], found: await similar(shared.db, context as number[], signal) });
      } else {
        const body: { [key: string]: any } = { ...question, k: 20 };
        if (mode) body.mode = mode;
        const answer = await call("POST", "/predict", { ...ask, ...jsonBody(body) });
        if (answer.headers.get("Content-Type")?.includes("ndjson")) setPredictions((await all(answer, signal)).lines);
        else setPredictions([await answer.json()]);
      }
    });
  }, [params.q, mode, doing, params.order, shared.db, worded, shared.contract === null, about === null]);
  const act = (what: string) => change({ q: typed.trim() || " ", do: what === "predict" ? "" : what });
  return (
    <>
      <form
        class="inline"
        onSubmit={(event) => {
          event.preventDefault();
          act("predict");
        }}
      >
        <Field label={speaks ? "Words" : "Tokens"} hint={speaks ? "or tokens, with blanks between them" : "numbers, with blanks between them"} wide>
          <Text value={typed} set={setTyped} placeholder={speaks ? "to be or" : "2 4 5"} />
        </Field>
        {speaks && (
          <Field label="Read as">
            <Choice value={as} set={(value) => change({ as: value })} options={[["", "what it looks like"], ["words", "words"], ["tokens", "tokens"]]} />
          </Field>
        )}
        <Field label="Answered by">
          <Choice value={mode} set={(value) => change({ mode: value })} options={modes} />
        </Field>
        {about?.contexts && (
        <Field label="Order of similar contexts" hint="and of what belongs together">
          <Choice value={params.order ?? "3"} set={(value) => change({ order: value === "3" ? "" : value })} options={["1", "2", "3", "4", "5", "6", "7", "8"]} />
        </Field>
        )}
        <button type="submit" class="primary">
          Predict
        </button>
        <button type="button" onClick={() => act("score")}>
          Score
        </button>
        {about?.contexts && (
          <button type="button" onClick={() => act("similar")}>
            Similar contexts
          </button>
        )}
        {about?.contexts && (
          <button type="button" onClick={() => act("related")}>
            What belongs together
          </button>
        )}
        {task.busy && (
          <button type="button" onClick={task.stop}>
            Cancel
          </button>
        )}
      </form>
      <div aria-live="polite">
        {task.busy && <p class="quiet">Asking…</p>}
        <Failure error={task.error} />
        <div class="cards">
          {predictions.map((answer, i) => (
            <Prediction key={i} answer={answer} add={(part) => change({ q: (q.trim() + " " + part).trim(), do: "" })} />
          ))}
        </div>
        {score && <Score parts={score.parts} answer={score.answer} />}
        {belongs && <Related lines={belongs} />}
        {alike && (
          <section class="panel" aria-label="Similar contexts">
            <h3>Followed like {alike.tokens.length ? <Context tokens={alike.tokens} words={words} /> : "the empty context"}</h3>
            {alike.found.length ? (
              <table>
                <thead>
                  <tr>
                    <th scope="col">context</th>
                    <th scope="col">cosine</th>
                    <th scope="col" class="grow">
                      <span class="hidden">bar</span>
                    </th>
                  </tr>
                </thead>
                <tbody>
                  {alike.found.map((one) => (
                    <tr key={one.name}>
                      <td>{one.tokens ? <Context tokens={one.tokens} words={words} /> : one.name}</td>
                      <td>{one.score.toFixed(3)}</td>
                      <td class="grow">
                        <Bar part={one.score} />
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
            ) : (
              <p class="quiet">No other context of this order.</p>
            )}
          </section>
        )}
      </div>
    </>
  );
}
