// value: a value as what it is.
import { useMemo } from "preact/hooks";
import { change } from "./address";
import { number, showName, toInput } from "./bytes";
import { type Decoded, decode, dump, probability } from "./payload";
import { Bar } from "./ui";
import { useWords } from "./words";

const MOST = 300;

function Table({ head, rows, total }: { head: string[]; rows: (string | number | preact.JSX.Element)[][]; total: number }) {
  return (
    <>
      <table>
        <thead>
          <tr>
            {head.map((text) => (
              <th key={text} scope="col">
                {text}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row, i) => (
            <tr key={i}>
              {row.map((cell, k) => (
                <td key={k}>{cell}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      {total > rows.length && <p class="quiet">and {number(total - rows.length)} more</p>}
    </>
  );
}

const best = (row: [number, number][]): [number, number][] => [...row].sort((a, b) => b[1] - a[1]).slice(0, MOST);

const tokensIn = (value: Decoded): number[] => {
  switch (value.kind) {
    case "counts":
      return [...value.followers].sort((a, b) => b[1] - a[1]).slice(0, MOST).map(([token]) => token);
    case "probabilities":
      return [...value.entries].sort((a, b) => b[1] - a[1]).slice(0, MOST).map(([token]) => token);
    case "topk":
      return value.ranked.map(([token]) => token);
    case "context":
      return value.tokens;
    case "continuations":
      return [value.token];
    case "matrix":
      return best(value.row).map(([token]) => token);
    default:
      return [];
  }
};

function described(value: Decoded, bytes: Uint8Array, words: Map<number, string>) {
  const named = (token: number) => (words.has(token) ? `${words.get(token)} (${token})` : token);
  switch (value.kind) {
    case "counts": {
      const sum = value.followers.reduce((all, [, count]) => all + count, 0);
      const best = [...value.followers].sort((a, b) => b[1] - a[1]).slice(0, MOST);
      return {
        title: `Counts, order ${value.order}: ${number(value.followers.length)} followers, ${number(sum)} in all`,
        body: <Table head={["token", "count", "part"]} total={value.followers.length} rows={best.map(([token, count]) => [named(token), number(count), <Bar part={count / best[0][1]} />])} />,
      };
    }
    case "probabilities": {
      const best = [...value.entries].sort((a, b) => b[1] - a[1]).slice(0, MOST);
      return {
        title: `Probabilities, order ${value.order}: ${number(value.entries.length)} followers`,
        body: <Table head={["token", "p", "alpha"]} total={value.entries.length} rows={best.map(([token, q, alpha]) => [named(token), probability(q).toPrecision(3), alpha === null ? "none" : (alpha / 1000).toFixed(3)])} />,
      };
    }
    case "topk":
      return {
        title: `Top-K, order ${value.order}: the best ${value.ranked.length}`,
        body: <Table head={["rank", "token", "p"]} total={value.ranked.length} rows={value.ranked.map(([token, q], i) => [i + 1, named(token), probability(q).toPrecision(3)])} />,
      };
    case "context":
      return { title: `Context of ${value.orderSize} tokens`, body: <p class="tokens">{value.tokens.map((token, i) => <code key={i}>{named(token)}</code>)}</p> };
    case "continuations":
      return { title: "Continuations", body: <p>Token {named(value.token)} follows {number(value.contexts)} different contexts.</p> };
    case "links":
      return {
        title: `Links: ${number(value.links.length)}, the most related first`,
        body: (
          <Table
            head={["pair", "weight", "part"]}
            total={value.links.length}
            rows={value.links.slice(0, MOST).map(([pair, weight]) => [
              <button type="button" class="link" onClick={() => change({ name: toInput(pair) })}>
                {showName(pair)}
              </button>,
              weight.toPrecision(4),
              <Bar part={weight} />,
            ])}
          />
        ),
      };
    case "matrix":
      return {
        title: `${value.column ? "Column" : "Row"} of the matrix of order ${value.order}, ${value.metric}: ${number(value.row.length)} tokens ${value.column ? "before" : "after"} it`,
        body: <Table head={["token", value.metric]} total={value.row.length} rows={best(value.row).map(([token, v]) => [named(token), Number(v.toPrecision(6))])} />,
      };
    case "json":
      return { title: "JSON", body: <pre tabIndex={0}>{JSON.stringify(value.value, null, 2)}</pre> };
    case "text":
      return { title: "Text", body: <pre tabIndex={0} class="wrap">{value.text}</pre> };
    default:
      return { title: "Bytes", body: <pre tabIndex={0}>{dump(bytes)}</pre> };
  }
}

export function Value({ name, bytes, whole }: { name: Uint8Array; bytes: Uint8Array; whole: boolean }) {
  const decoded = useMemo(() => decode(name, bytes, whole), [name, bytes, whole]);
  const words = useWords(useMemo(() => tokensIn(decoded), [decoded]));
  const shown = described(decoded, bytes, words);
  return (
    <div class="value" tabIndex={0} role="group" aria-label={shown.title}>
      <h4>{shown.title}</h4>
      {shown.body}
    </div>
  );
}
