// sample: what "Load the sample" stores: names with values of every kind, and the counts of a small text, smoothed.
import { all, call, json } from "./api";
import { encode, toBase64 } from "./bytes";

export const SAMPLE = "sample";

// The Tyger, William Blake, 1794.
const POEM = `tyger tyger burning bright in the forests of the night what immortal hand or eye could frame thy fearful symmetry
in what distant deeps or skies burnt the fire of thine eyes on what wings dare he aspire what the hand dare seize the fire
and what shoulder and what art could twist the sinews of thy heart and when thy heart began to beat what dread hand and what dread feet
what the hammer what the chain in what furnace was thy brain what the anvil what dread grasp dare its deadly terrors clasp
when the stars threw down their spears and water'd heaven with their tears did he smile his work to see did he who made the lamb make thee
tyger tyger burning bright in the forests of the night what immortal hand or eye dare frame thy fearful symmetry`;

/** Each line between 2 and 3, each word a number from 4 on in the order in which they come. */
export function documents(): { words: Map<string, number>; lines: number[][] } {
  const words = new Map<string, number>();
  const lines = POEM.split("\n").map((line) => [
    2,
    ...line.split(" ").map((word) => {
      if (!words.has(word)) words.set(word, words.size + 4);
      return words.get(word)!;
    }),
    3,
  ]);
  return { words, lines };
}

function pairs(words: Map<string, number>): [string, string][] {
  const out: [string, string][] = [
    ["greeting:de", "Guten Tag"],
    ["greeting:en", "Good day"],
    ["greeting:fr", "Bonjour"],
    ["greeting:ja", "\u3053\u3093\u306b\u3061\u306f"],
    ["user:1", JSON.stringify({ name: "Ada", langs: ["en", "fr"], born: 1815 })],
    ["user:2", JSON.stringify({ name: "Emmy", langs: ["de"], born: 1882 })],
    ["meta:sample", JSON.stringify({ title: "The Tyger", author: "William Blake", year: 1794 })],
  ];
  for (const [word, token] of words) out.push([`word:${String(token).padStart(3, "0")}`, word]);
  return out;
}

export async function loadSample(words: boolean, say: (text: string) => void, signal: AbortSignal): Promise<void> {
  const poem = documents();
  const params = { db: SAMPLE };
  say("storing names and values");
  const batch = pairs(words ? new Map() : poem.words).map(([name, value]) => JSON.stringify({ op: "pair_put", pair: toBase64(encode(name)), value: toBase64(encode(value)) }) + "\n");
  await all(await call("POST", "/batch", { params: { ...params, atomic: true, results: false }, body: batch.join(""), type: "application/x-ndjson", signal }), signal);
  say("counting its n-grams");
  const text = words ? POEM.split("\n").map((line) => JSON.stringify({ text: line }) + "\n") : poem.lines.map((tokens) => JSON.stringify({ tokens }) + "\n");
  await json("POST", "/ngrams", { params: { ...params, order: 3, once: "console-sample", text: words || undefined }, body: text.join(""), type: "application/x-ndjson", signal });
  say("smoothing");
  await all(await call("POST", "/reduce/smooth/cnt:", { params, signal }), signal);
}
