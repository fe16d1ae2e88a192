// calls: every call of the contract as a form, made from /openapi.yaml as this server has it.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { change, useAddress } from "../address";
import { ask, headers, isCut, Problem, token, url, type Line, type Params } from "../api";
import { number, size } from "../bytes";
import type { Body, Operation } from "../contract";
import { may, type Right, useShared } from "../state";
import { Choice, copy, download, Failure, Field, Text } from "../ui";

const SHOWN_LINES = 500;
const SHOWN_TEXT = 200_000;
const KEPT = 256 << 20;

/** The path with its parameters; a byte string's slashes mean themselves. */
function pathOf(op: Operation, values: Params): string {
  return op.path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(String(values[name] ?? "")));
}

function queryOf(op: Operation, values: Params): Params {
  return Object.fromEntries(op.parameters.filter((p) => p.in === "query").map((p) => [p.name, values[p.name]]));
}

const shell = (text: string): string => "'" + text.replace(/'/g, "'\\''") + "'";
const python = (text: string): string =>
  JSON.stringify(text).replace(/[\u007f-\u{10ffff}]/gu, (c) => {
    const digits = c.codePointAt(0)!.toString(16);
    return digits.length > 4 ? "\\U" + digits.padStart(8, "0") : "\\u" + digits.padStart(4, "0");
  });

interface Request {
  method: string;
  address: string;
  headers: Record<string, string>;
  body: string | File | undefined;
}

export function asCurl(request: Request): string {
  const parts = ["curl -sS --fail-with-body"];
  if (request.method !== "GET") parts.push("-X " + request.method);
  for (const [name, value] of Object.entries(request.headers)) parts.push("-H " + shell(`${name}: ${value}`));
  if (token()) parts.push('-H "Authorization: Bearer $CHEETAH_TOKEN"');
  if (request.body instanceof File) parts.push("--data-binary " + shell("@" + request.body.name));
  else if (request.body !== undefined) parts.push("--data-raw " + shell(request.body)); // an @ at its begin means itself
  return [...parts, shell(request.address)].join(" \\\n  ");
}

export function asPython(request: Request): string {
  const heads = Object.entries(request.headers).map(([name, value]) => `${python(name)}: ${python(value)}`);
  if (token()) heads.push('"Authorization": "Bearer " + os.environ["CHEETAH_TOKEN"]');
  const body = request.body instanceof File ? `open(${python(request.body.name)}, "rb")` : request.body === undefined ? "" : python(request.body) + ".encode()";
  return [
    ...(token() ? ["import os"] : []),
    "import urllib.request",
    "",
    `request = urllib.request.Request(${python(request.address)}, method=${python(request.method)}` + (body ? `, data=${body}` : "") + ")",
    ...heads.map((head) => `request.add_header(${head.replace(/: /, ", ")})`),
    "with urllib.request.urlopen(request) as answer:",
    "    for line in answer:",
    '        print(line.decode(), end="")',
    "",
  ].join("\n");
}

interface Answer {
  status: number;
  type: string;
  heads: [string, string][];
  bytes: number;
  lines: number;
  seconds: number;
  text: string;
  state: "running" | "whole" | "cut" | "cancelled" | "error";
  more: boolean;
}

/** Reads an answer as it comes; what is shown of it is its end. */
async function receive(answer: Response, signal: AbortSignal, began: number, show: (answer: Answer, parts: Uint8Array[]) => void): Promise<void> {
  const type = answer.headers.get("Content-Type") ?? "";
  const stream = type.includes("ndjson");
  const textual = /json|text|yaml/.test(type);
  const heads = [...answer.headers.entries()].filter(([name]) => !/^(date|content-security-policy)$/.test(name));
  const out: Answer = { status: answer.status, type, heads, bytes: 0, lines: 0, seconds: 0, text: "", state: "running", more: false };
  const parts: Uint8Array[] = [];
  const decoder = new TextDecoder();
  let last = "";
  let shown = 0;
  const paint = (force: boolean) => {
    const now = performance.now();
    if (!force && now - shown < 100) return;
    shown = now;
    out.seconds = (now - began) / 1000;
    show({ ...out }, parts);
  };
  const take = (text: string) => {
    out.text += text;
    if (stream) {
      const ended = text.lastIndexOf("\n");
      for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) out.lines++;
      last = ended < 0 ? last + text : text.slice(ended + 1);
    }
    if (out.text.length > SHOWN_TEXT) {
      const cut = out.text.length - SHOWN_TEXT / 2;
      out.text = out.text.slice(stream ? out.text.indexOf("\n", cut) + 1 : cut);
      out.more = true;
    }
  };
  const reader = answer.body?.getReader();
  try {
    while (reader) {
      const part = await reader.read();
      if (part.done) break;
      out.bytes += part.value.length;
      if (out.bytes <= KEPT) parts.push(part.value);
      else parts.length = 0; // half of it is worth nothing
      if (textual) take(decoder.decode(part.value, { stream: true }));
      paint(false);
    }
    out.state = answer.status >= 400 ? "error" : "whole";
    if (stream) {
      const line = out.text.trimEnd().split("\n").pop();
      let end: Line | undefined;
      try {
        end = line ? JSON.parse(line) : undefined;
      } catch {
        end = undefined;
      }
      if (isCut(end) || last !== "") out.state = "cut";
      else if (end!.error) out.state = "error";
    }
  } catch (error) {
    out.state = signal.aborted ? "cancelled" : "cut";
  }
  if (!textual) out.text = out.bytes ? `${size(out.bytes)} of ${type}: see Download` : "";
  paint(true);
}

const STATES = {
  running: "It is being sent.",
  whole: "The answer is whole.",
  cut: "The stream broke off before its end: what is shown is not all.",
  cancelled: "Cancelled: what is shown is not all.",
  error: "The server answered with an error.",
};

function problemIn(text: string): Problem | null {
  try {
    const line = JSON.parse(text.trimEnd().split("\n").pop()!);
    const body = line.error ?? line;
    return body.code ? new Problem(body.status, body.code, body.detail) : null;
  } catch {
    return null;
  }
}

function Answered({ answer, stop, save }: { answer: Answer; stop: () => void; save: () => void }) {
  const rows = answer.text.split("\n");
  const text = answer.type.includes("ndjson") && rows.length > SHOWN_LINES ? rows.slice(-SHOWN_LINES).join("\n") : answer.text;
  const rate = answer.seconds > 0 ? answer.lines / answer.seconds : 0;
  return (
    <section class="panel" aria-label="Answer">
      <h3>
        Answer <span class={answer.status >= 400 ? "status bad" : "status"}>{answer.status}</span>
      </h3>
      <p role="status" class={answer.state === "cut" ? "broken" : ""}>
        {STATES[answer.state]}{" "}
        {answer.lines > 0 && `${number(answer.lines)} lines, ${number(Math.round(rate))} a second, `}
        {size(answer.bytes)} in {answer.seconds.toFixed(2)} s.
      </p>
      {answer.state === "error" && <Failure error={problemIn(answer.text)} />}
      <p class="buttons">
        {answer.state === "running" && (
          <button type="button" onClick={stop}>
            Cancel
          </button>
        )}
        <button type="button" onClick={save} disabled={answer.bytes === 0 || answer.bytes > KEPT}>
          Download the answer
        </button>
      </p>
      {answer.bytes > KEPT && <p class="quiet">It is over {size(KEPT)}, which this page does not keep: copy it as curl.</p>}
      {(answer.more || text.length < answer.text.length) && <p class="quiet">The last part of it:</p>}
      <pre tabIndex={0} aria-label="Body of the answer">
        {text}
      </pre>
      <details>
        <summary>Headers</summary>
        <dl class="heads">
          {answer.heads.map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
      </details>
    </section>
  );
}

function startOf(op: Operation, params: { [name: string]: string }, db: string): Params {
  const values: Params = {};
  for (const p of op.parameters) {
    values[p.name] = params["p." + p.name] ?? (p.name === "db" || (p.name === "name" && p.in === "path") ? db : p.in === "path" && p.required ? p.example || p.choices[0] || "" : "");
  }
  return values;
}

function Form({ op }: { op: Operation }) {
  const shared = useShared();
  const { params } = useAddress();
  const [values, setValues] = useState<Params>(() => startOf(op, params, shared.db));
  const [type, setType] = useState(op.bodies[0]?.type ?? "");
  const [accept, setAccept] = useState("");
  const body: Body | undefined = op.bodies.find((one) => one.type === type);
  const [text, setText] = useState(params.body ?? body?.examples[0]?.text ?? "");
  const [file, setFile] = useState<File | null>(null);
  const [answer, setAnswer] = useState<Answer | null>(null);
  const [error, setError] = useState<unknown>(null);
  const parts = useRef<Uint8Array[]>([]);
  const control = useRef<AbortController>();
  useEffect(() => () => control.current?.abort(), []);
  const set = (name: string, value: string) => {
    setValues((old) => ({ ...old, [name]: value }));
    change({ ["p." + name]: name === "db" ? "" : value }, true);
  };
  const sends = body !== undefined && (file !== null || text !== "" || body.required);
  const options = { params: queryOf(op, values), body: sends ? (file ?? text) : undefined, type, accept: accept || undefined };
  const request = (): Request => ({ method: op.method, address: location.origin + url(pathOf(op, values), options.params), headers: headers(options), body: options.body });
  const submit = async (event: Event) => {
    event.preventDefault();
    control.current?.abort();
    const own = (control.current = new AbortController());
    setAnswer(null);
    setError(null);
    if (sends && !file) change({ body: text.length <= 2000 ? text : "" }, true);
    const began = performance.now();
    try {
      const response = await ask(op.method, pathOf(op, values), { ...options, signal: own.signal });
      await receive(response, own.signal, began, (now, kept) => {
        if (control.current !== own) return;
        parts.current = kept;
        setAnswer(now);
      });
      if (op.id === "createDatabase" || op.id === "dropDatabase") shared.refresh();
    } catch (problem) {
      if (!own.signal.aborted) setError(problem);
    }
  };
  const give = async (what: string, made: string) => shared.say((await copy(made)) ? what + " copied" : "the browser did not let it be copied");
  return (
    <>
      <section class="panel" aria-label="Request">
        <h3>
          <code>
            {op.method} {op.path}
          </code>
        </h3>
        <p>{op.summary}</p>
        {op.description && (
          <details>
            <summary>More about it</summary>
            <p class="description">{op.description}</p>
          </details>
        )}
        <form onSubmit={submit}>
          <div class="inline">
            {op.parameters.map((p) => (
              <Field key={p.name} label={p.name} hint={p.in === "path" ? "path" : p.required ? "needed" : ""}>
                {p.choices.length ? (
                  <Choice value={String(values[p.name] ?? "")} set={(value) => set(p.name, value)} options={p.required ? p.choices : [["", ""], ...p.choices.map((c): [string, string] => [c, c])]} />
                ) : (
                  <Text value={String(values[p.name] ?? "")} set={(value) => set(p.name, value)} title={p.description} required={p.required && p.in === "query"} placeholder={p.example} />
                )}
              </Field>
            ))}
            {op.answers.length > 1 && (
              <Field label="Answer as">
                <Choice value={accept} set={setAccept} options={[["", "as the server chooses"], ...op.answers.map((a): [string, string] => [a, a])]} />
              </Field>
            )}
          </div>
          {body && (
            <>
              <div class="inline">
                <Field label="Body">
                  <Choice value={type} set={setType} options={op.bodies.map((one) => one.type)} />
                </Field>
                {body.examples.length > 0 && (
                  <Field label="Example">
                    <Choice value="" set={(name) => setText(body.examples.find((one) => one.name === name)?.text ?? text)} options={[["", "choose one"], ...body.examples.map((one): [string, string] => [one.name, one.name])]} />
                  </Field>
                )}
                <Field label="Or a file">
                  <input type="file" onChange={(event) => setFile(event.currentTarget.files?.[0] ?? null)} />
                </Field>
              </div>
              <Field label="Text of the body" wide>
                <textarea rows={Math.min(12, Math.max(4, text.split("\n").length))} value={text} disabled={file !== null} onInput={(event) => setText(event.currentTarget.value)} spellcheck={false} />
              </Field>
            </>
          )}
          <p class="buttons">
            <button type="submit" class={op.method === "DELETE" ? "danger" : "primary"}>
              Send
            </button>
            <button type="button" onClick={() => give("curl", asCurl(request()))}>
              Copy as curl
            </button>
            <button type="button" onClick={() => give("Python", asPython(request()))}>
              Copy as Python
            </button>
          </p>
        </form>
      </section>
      <Failure error={error} />
      {answer && <Answered answer={answer} stop={() => control.current?.abort()} save={() => download(new Blob(parts.current as BlobPart[], { type: answer.type }), op.id + (answer.type.includes("json") ? ".json" : ""))} />}
    </>
  );
}

export function Calls() {
  const shared = useShared();
  const { params } = useAddress();
  const contract = shared.contract;
  const groups = useMemo(() => {
    const out = new Map<string, Operation[]>();
    for (const op of contract?.operations ?? []) {
      if (op.right !== "open" && !may(shared, op.right as Right)) continue;
      out.set(op.tag, [...(out.get(op.tag) ?? []), op]);
    }
    return out;
  }, [contract, shared.right]);
  if (!contract) return <p class="quiet">Reading the contract…</p>;
  const op = [...groups.values()].flat().find((one) => one.id === params.op) ?? [...groups.values()][0]?.[0];
  const choose = (id: string) => {
    const cleared = Object.fromEntries(Object.keys(params).filter((name) => name.startsWith("p.") || name === "body").map((name) => [name, ""]));
    change({ ...cleared, op: id });
  };
  return (
    <>
      <Field label="Call" wide>
        <select value={op.id} onChange={(event) => choose(event.currentTarget.value)}>
          {[...groups].map(([tag, operations]) => (
            <optgroup key={tag} label={tag}>
              {operations.map((one) => (
                <option key={one.id} value={one.id} selected={one.id === op.id}>
                  {one.method} {one.path} - {one.summary}
                </option>
              ))}
            </optgroup>
          ))}
        </select>
      </Field>
      <Form key={op.id} op={op} />
    </>
  );
}
