// bytes: names and values as the server takes and shows them.

const utf8 = new TextDecoder("utf-8", { fatal: true });
const encoder = new TextEncoder();

export function fromBase64(text: string): Uint8Array {
  const binary = atob(text);
  const out = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) out[i] = binary.charCodeAt(i);
  return out;
}

export function toBase64(bytes: Uint8Array): string {
  let binary = "";
  for (let i = 0; i < bytes.length; i += 4096) binary += String.fromCharCode(...bytes.subarray(i, i + 4096));
  return btoa(binary);
}

export function hex(bytes: Uint8Array): string {
  let out = "";
  for (const byte of bytes) out += byte.toString(16).padStart(2, "0");
  return out;
}

export const encode = (text: string): Uint8Array => encoder.encode(text);

/** The text that bytes are, if they are UTF-8 that can be shown; else null. */
export function asText(bytes: Uint8Array): string | null {
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch {
    return null;
  }
  // eslint-disable-next-line no-control-regex
  return /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\ufeff]/.test(text) ? null : text;
}

/** A byte string as a person types it and as a URL takes it: text, x and hexadecimal, or * for the empty one. */
export function toInput(bytes: Uint8Array): string {
  if (bytes.length === 0) return "*";
  const text = asText(bytes);
  return text === null || text.startsWith("x") || text === "*" || /[\t\n]/.test(text) ? "x" + hex(bytes) : text;
}

/** The bytes of what was typed; null if it is hexadecimal that cannot be read. */
export function fromInput(typed: string): Uint8Array | null {
  if (typed === "*" || typed === "") return new Uint8Array();
  if (typed.length > 1 && typed.startsWith("x")) {
    const digits = typed.slice(1);
    if (digits.length % 2 || !/^[0-9a-fA-F]*$/.test(digits)) return null;
    return Uint8Array.from({ length: digits.length / 2 }, (_, i) => parseInt(digits.slice(2 * i, 2 * i + 2), 16));
  }
  return encode(typed);
}

/** In a path or a query, always as hexadecimal: no byte means anything there. */
export const inUrl = (bytes: Uint8Array): string => (bytes.length ? "x" + hex(bytes) : "*");

export function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** A name for people: its text, with what follows a known namespace in hexadecimal where that is no text. */
export function showName(bytes: Uint8Array): string {
  const text = asText(bytes);
  if (text !== null) return text;
  let cut = 0;
  for (let i = 0; i < bytes.length && i < 24; i++) if (bytes[i] === 0x3a) cut = i + 1;
  const head = cut ? asText(bytes.subarray(0, cut)) : null;
  return head === null ? "x" + hex(bytes) : head + "\u27e8" + hex(bytes.subarray(cut)) + "\u27e9";
}

const units = ["B", "KiB", "MiB", "GiB", "TiB"];
export function size(n: number): string {
  let i = 0;
  while (n >= 1024 && i < units.length - 1) {
    n /= 1024;
    i++;
  }
  return (i && n < 100 ? n.toFixed(1) : Math.round(n).toString()) + " " + units[i];
}

export const number = (n: number): string => n.toLocaleString("en-US");
