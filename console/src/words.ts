// words: a database's vocabulary: voc: and a word lead to its token, tok: and a token to its word.
import { useEffect, useState } from "preact/hooks";
import { all, call, jsonBody } from "./api";
import { asText, encode, fromBase64, toBase64 } from "./bytes";
import { type Shared, useShared } from "./state";

const MOST = 1000;

/** Does this server speak words at all? */
export const hasWords = (shared: Shared): boolean => Boolean(shared.contract?.find("predict")?.parameters.some((one) => one.name === "text"));

function tokenName(token: number): string {
  const name = new Uint8Array([...encode("tok:"), 0, 0, 0, 0]);
  new DataView(name.buffer).setUint32(4, token);
  return toBase64(name);
}

async function values(db: string, names: string[], signal: AbortSignal): Promise<(Uint8Array | null)[]> {
  const answer = await call("POST", "/pairs", { params: { db, values: true }, signal, ...jsonBody({ pairs: names }) });
  const found = await all(answer, signal);
  return found.lines.map((line) => (typeof line.value === "string" ? fromBase64(line.value) : null));
}

/** The words of tokens; one that has none is not in the map. */
export async function wordsOf(db: string, tokens: number[], signal: AbortSignal): Promise<Map<number, string>> {
  const asked = [...new Set(tokens)].slice(0, MOST);
  const words = new Map<number, string>();
  if (!asked.length) return words;
  const found = await values(db, asked.map(tokenName), signal);
  found.forEach((value, i) => {
    const text = value && asText(value);
    if (text) words.set(asked[i], text);
  });
  return words;
}

/** The tokens of words; null for one that is not in the vocabulary. */
export async function tokensOfWords(db: string, words: string[], signal: AbortSignal): Promise<(number | null)[]> {
  if (!words.length) return [];
  const found = await values(db, words.map((word) => toBase64(encode("voc:" + word))), signal);
  return found.map((value) => (value?.length === 4 ? new DataView(value.buffer, value.byteOffset).getUint32(0) : null));
}

/** The words of the tokens that are shown, once they are known; empty in a database without a vocabulary. */
export function useWords(tokens: number[]): Map<number, string> {
  const shared = useShared();
  const [words, set] = useState<Map<number, string>>(new Map());
  const key = tokens.slice(0, MOST).join(",");
  const speaks = hasWords(shared);
  useEffect(() => {
    set(new Map());
    if (!speaks || key === "") return;
    const control = new AbortController();
    wordsOf(shared.db, tokens, control.signal)
      .then(set)
      .catch(() => undefined); // the numbers are there
    return () => control.abort();
  }, [key, shared.db, speaks]);
  return words;
}
