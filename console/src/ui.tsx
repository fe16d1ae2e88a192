// ui: the small parts that the views are made of.
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Problem } from "./api";

/** An error, in the server's words, with its code. */
export function Failure({ error }: { error: unknown }) {
  if (!error) return null;
  if (error instanceof DOMException && error.name === "AbortError") return null;
  const problem = error instanceof Problem ? error : new Problem(0, "page_error", String((error as Error).message ?? error));
  return (
    <div class="failure" role="alert">
      <strong>
        {problem.status ? problem.status + " " : ""}
        <code>{problem.code}</code>
      </strong>
      <span>{problem.detail}</span>
      {problem.request && <small>request {problem.request}</small>}
    </div>
  );
}

export function Field(props: { label: string; hint?: string; wide?: boolean; children: ComponentChildren }) {
  return (
    <label class={props.wide ? "field wide" : "field"}>
      <span>
        {props.label}
        {props.hint && <small> {props.hint}</small>}
      </span>
      {props.children}
    </label>
  );
}

export function Text(props: JSX.IntrinsicElements["input"] & { set: (text: string) => void }) {
  const { set, ...rest } = props;
  return <input spellcheck={false} autocomplete="off" {...rest} onInput={(event) => set(event.currentTarget.value)} />;
}

export function Choice(props: { value: string; set: (value: string) => void; options: (string | [string, string])[]; id?: string; label?: string }) {
  return (
    <select id={props.id} aria-label={props.label} value={props.value} onChange={(event) => props.set(event.currentTarget.value)}>
      {props.options.map((option) => {
        const [value, text] = typeof option === "string" ? [option, option] : option;
        return (
          <option key={value} value={value} selected={value === props.value}>
            {text}
          </option>
        );
      })}
    </select>
  );
}

/** A bar for a part of a whole; its number stands beside it as text. */
export function Bar({ part }: { part: number }) {
  return (
    <span class="bar" aria-hidden="true">
      <span style={{ width: Math.max(0, Math.min(1, part)) * 100 + "%" }} />
    </span>
  );
}

/** Puts text into the clipboard; on pages without the right to it, as HTTP ones of other hosts, in the old way. */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.setAttribute("aria-hidden", "true");
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

export function download(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

/** A dialog; Escape and its cancel button close it. */
export function Dialog(props: { title: string; close: () => void; children: ComponentChildren }) {
  const own = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    own.current?.showModal();
  }, []);
  return (
    <dialog ref={own} aria-labelledby="dialog-title" onClose={props.close}>
      <h2 id="dialog-title">{props.title}</h2>
      {props.children}
    </dialog>
  );
}

/** Runs what a button starts: one at a time, with its error, and what stops it. */
export function useTask(): { busy: boolean; error: unknown; run: (work: (signal: AbortSignal) => Promise<void>) => Promise<void>; stop: () => void; clear: () => void } {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const control = useRef<AbortController | null>(null);
  useEffect(() => () => control.current?.abort(), []);
  const stop = () => control.current?.abort();
  const run = async (work: (signal: AbortSignal) => Promise<void>) => {
    stop();
    const own = (control.current = new AbortController());
    setBusy(true);
    setError(null);
    try {
      await work(own.signal);
    } catch (problem) {
      if (!own.signal.aborted) setError(problem);
    } finally {
      if (control.current === own) {
        control.current = null;
        setBusy(false);
      }
    }
  };
  return { busy, error, run, stop, clear: () => setError(null) };
}
