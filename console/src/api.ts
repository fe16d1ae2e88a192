// api: requests to the server that serves this page, with the token of its user; answers, problems, streams.

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type Line = { [key: string]: any };
export type Params = { [key: string]: string | number | boolean | undefined };

/** What went wrong, as the server says it (RFC 9457); status 0: no answer came. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    readonly detail: string,
    readonly request = "",
  ) {
    super(`${code}: ${detail}`);
  }
}

const KEY = "cheetah-token";
export const token = (): string => sessionStorage.getItem(KEY) ?? "";
export function keepToken(text: string): void {
  if (text) sessionStorage.setItem(KEY, text);
  else sessionStorage.removeItem(KEY);
}

export function url(path: string, params: Params = {}): string {
  const query = Object.entries(params)
    .filter(([, value]) => value !== undefined && value !== "")
    .map(([name, value]) => encodeURIComponent(name) + "=" + encodeURIComponent(String(value)));
  return path + (query.length ? "?" + query.join("&") : "");
}

export interface Options {
  params?: Params;
  body?: BodyInit;
  type?: string;
  accept?: string;
  /** A precondition: it is written only if this is still what is there (a tag), or if nothing is (null). */
  over?: string | null;
  signal?: AbortSignal;
}

export function headers(options: Options): Record<string, string> {
  const out: Record<string, string> = {};
  if (options.accept) out["Accept"] = options.accept;
  if (options.body !== undefined && options.type) out["Content-Type"] = options.type;
  if (options.over === null) out["If-None-Match"] = "*";
  else if (options.over !== undefined) out["If-Match"] = options.over;
  return out;
}

async function problemOf(answer: Response): Promise<Problem> {
  const request = answer.headers.get("X-Request-Id") ?? "";
  try {
    const body = await answer.json();
    return new Problem(answer.status, String(body.code), String(body.detail), request);
  } catch {
    return new Problem(answer.status, "http_" + answer.status, answer.statusText || "no reason was given", request);
  }
}

/** The answer, whatever its status. */
export async function ask(method: string, path: string, options: Options = {}): Promise<Response> {
  const sent = headers(options);
  if (token()) sent["Authorization"] = "Bearer " + token();
  try {
    return await fetch(url(path, options.params), {
      method,
      headers: sent,
      body: options.body,
      signal: options.signal,
      cache: "no-store",
      credentials: "same-origin",
    });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem(0, "no_answer", "the server did not answer: " + (error as Error).message);
  }
}

/** The answer, if it is no error. */
export async function call(method: string, path: string, options: Options = {}): Promise<Response> {
  const answer = await ask(method, path, options);
  if (answer.status >= 400) throw await problemOf(answer);
  return answer;
}

export async function json(method: string, path: string, options: Options = {}): Promise<any> {
  const answer = await call(method, path, options);
  try {
    return answer.status === 204 ? null : await answer.json();
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem(0, "cut_off", "the answer broke off before its end");
  }
}

export function jsonBody(body: Json): { body: string; type: string } {
  return { body: JSON.stringify(body), type: "application/json" };
}

export const isCut = (line: Line | undefined): boolean => line === undefined || (line.end === undefined && line.error === undefined);

/** The lines of a stream as they come. Returns its end; throws the problem of its last line, or that it broke off. */
export async function* lines(answer: Response, signal?: AbortSignal): AsyncGenerator<Line, Line, void> {
  const reader = answer.body!.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let last: Line | undefined;
  try {
    for (;;) {
      let part: ReadableStreamReadResult<Uint8Array>;
      try {
        part = await reader.read();
      } catch (error) {
        if (signal?.aborted) throw error;
        throw new Problem(0, "cut_off", "the stream broke off before its end: what is shown is not all");
      }
      rest += part.done ? decoder.decode() : decoder.decode(part.value, { stream: true });
      const ready = rest.split("\n");
      rest = ready.pop()!;
      for (const text of ready) {
        if (!text) continue;
        last = JSON.parse(text) as Line;
        if (last.end === undefined && !(last.error && typeof last.error === "object")) yield last;
      }
      if (part.done) break;
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
  if (last?.end !== undefined) return last.end;
  const error = last?.error;
  if (error && typeof error === "object") throw new Problem(error.status, error.code, error.detail);
  throw new Problem(0, "cut_off", "the stream broke off before its end: what is shown is not all");
}

/** All lines of a short stream, and its end. */
export async function all(answer: Response, signal?: AbortSignal): Promise<{ lines: Line[]; end: Line }> {
  const found: Line[] = [];
  const source = lines(answer, signal);
  for (;;) {
    const step = await source.next();
    if (step.done) return { lines: found, end: step.value };
    found.push(step.value);
  }
}
