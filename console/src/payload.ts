// payload: what a value is: the layouts of the statistics (all big-endian), JSON, text, or bytes.
import { asText } from "./bytes";

export type Decoded =
  | { kind: "counts"; order: number; followers: [number, number][] }
  | { kind: "probabilities"; order: number; entries: [number, number, number | null][] }
  | { kind: "topk"; order: number; ranked: [number, number][] }
  | { kind: "context"; orderSize: number; tokens: number[] }
  | { kind: "continuations"; token: number; contexts: number }
  | { kind: "links"; links: [Uint8Array, number][] }
  | { kind: "matrix"; order: number; metric: string; row: [number, number][]; column: boolean }
  | { kind: "json"; value: unknown }
  | { kind: "text"; text: string }
  | { kind: "bytes" };

/** 10^(-12 + q / 255 * 12): what a quantized probability stands for. */
export const probability = (q: number): number => Math.pow(10, -12 + (q / 255) * 12);

const begins = (name: Uint8Array, text: string): boolean => {
  for (let i = 0; i < text.length; i++) if (name[i] !== text.charCodeAt(i)) return false;
  return true;
};

function list(view: DataView, size: number): { order: number; n: number; at: number } | null {
  const version = view.getUint8(0);
  if (version !== 1 && version !== 2) return null;
  const n = version === 1 ? view.getUint16(2) : view.getUint32(2);
  const at = version === 1 ? 4 : 6;
  return at + n * size <= view.byteLength ? { order: view.getUint8(1), n, at } : null;
}

function counts(view: DataView): Decoded | null {
  const head = list(view, 8);
  if (!head) return null;
  const followers = Array.from({ length: head.n }, (_, i): [number, number] => [view.getUint32(head.at + 8 * i), view.getUint32(head.at + 8 * i + 4)]);
  return { kind: "counts", order: head.order, followers };
}

function probabilities(view: DataView): Decoded | null {
  const head = list(view, 7);
  if (!head) return null;
  const entries = Array.from({ length: head.n }, (_, i): [number, number, number | null] => {
    const at = head.at + 7 * i;
    const alpha = view.getUint16(at + 5);
    return [view.getUint32(at), view.getUint8(at + 4), alpha === 0xffff ? null : alpha];
  });
  return { kind: "probabilities", order: head.order, entries };
}

function topk(view: DataView): Decoded | null {
  const n = view.getUint8(2);
  if (view.getUint8(0) !== 1 || 3 + 5 * n > view.byteLength) return null;
  return { kind: "topk", order: view.getUint8(1), ranked: Array.from({ length: n }, (_, i): [number, number] => [view.getUint32(3 + 5 * i), view.getUint8(7 + 5 * i)]) };
}

function context(view: DataView): Decoded | null {
  const n = view.getUint8(2);
  if (view.getUint8(0) !== 1 || 3 + 4 * n > view.byteLength) return null;
  return { kind: "context", orderSize: view.getUint8(1), tokens: Array.from({ length: n }, (_, i) => view.getUint32(3 + 4 * i)) };
}

function continuations(view: DataView): Decoded | null {
  return view.getUint8(0) === 1 && view.byteLength >= 9 ? { kind: "continuations", token: view.getUint32(1), contexts: view.getUint32(5) } : null;
}

function links(view: DataView): Decoded | null {
  if (view.getUint8(0) !== 1) return null;
  const found: [Uint8Array, number][] = [];
  let at = 3;
  for (let left = view.getUint16(1); left > 0; left--) {
    const n = view.getUint16(at);
    if (at + 2 + n + 4 > view.byteLength) return null;
    found.push([new Uint8Array(view.buffer, view.byteOffset + at + 2, n), view.getFloat32(at + 2 + n)]);
    at += 2 + n + 4;
  }
  return { kind: "links", links: found };
}

function matrix(column: boolean): (view: DataView) => Decoded | null {
  return (view) => {
    const metric = ["count", "p", "pmi"][view.getUint8(2)];
    const n = view.getUint32(3);
    if (view.getUint8(0) !== 1 || metric === undefined || 7 + 12 * n > view.byteLength) return null;
    const row = Array.from({ length: n }, (_, i): [number, number] => [view.getUint32(7 + 12 * i), view.getFloat64(11 + 12 * i)]);
    return { kind: "matrix", order: view.getUint8(1), metric, row, column };
  };
}

const LAYOUTS: [string, (view: DataView) => Decoded | null][] = [
  ["cnt:", counts],
  ["prob:", probabilities],
  ["topk:", topk],
  ["ctxv:", context],
  ["ctx:", context],
  ["cont:", continuations],
  ["link:", links],
  ["mat:", matrix(false)],
  ["matt:", matrix(true)],
];

/** whole: is all of the value there? The layouts and JSON are read of whole values only. */
export function decode(name: Uint8Array, value: Uint8Array, whole: boolean): Decoded {
  const layout = LAYOUTS.find(([prefix]) => begins(name, prefix));
  if (layout && whole) {
    try {
      const found = layout[1](new DataView(value.buffer, value.byteOffset, value.byteLength));
      if (found) return found;
    } catch {
      // shorter than its head: shown as what it is
    }
  }
  const text = asText(whole ? value : value.subarray(0, value.length - (value.length > 4 ? 4 : 0)));
  if (text === null) return { kind: "bytes" };
  if (whole && /^\s*[[{]/.test(text)) {
    try {
      return { kind: "json", value: JSON.parse(text) };
    } catch {
      // text that only begins like JSON
    }
  }
  return { kind: "text", text };
}

/** Sixteen bytes a line: where, hexadecimal, and the letters among them. */
export function dump(bytes: Uint8Array, most = 4096): string {
  const out: string[] = [];
  for (let at = 0; at < bytes.length && at < most; at += 16) {
    const row = Array.from(bytes.subarray(at, at + 16));
    const digits = row.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    out.push(at.toString(16).padStart(6, "0") + "  " + digits.padEnd(48) + " " + row.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : ".")).join(""));
  }
  return out.join("\n");
}
