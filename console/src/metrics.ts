// metrics: the text format of Prometheus, as far as the server writes it, and what the charts show of it.

export interface Sample {
  at: number;
  values: Map<string, { labels: { [name: string]: string }; value: number }[]>;
}

export function parse(text: string, at: number): Sample {
  const values: Sample["values"] = new Map();
  for (const line of text.split("\n")) {
    const found = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!found) continue;
    const labels: { [name: string]: string } = {};
    for (const label of (found[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[label[1]] = label[2];
    const list = values.get(found[1]) ?? [];
    list.push({ labels, value: found[3] === "+Inf" ? Infinity : Number(found[3]) });
    values.set(found[1], list);
  }
  return { at, values };
}

type Labels = { [name: string]: string };

export function sum(sample: Sample, name: string, where: (labels: Labels) => boolean = () => true): number {
  return (sample.values.get(name) ?? []).filter((one) => where(one.labels)).reduce((all, one) => all + one.value, 0);
}

/** A second; a counter that went down has begun anew. */
export function rate(before: Sample, now: Sample, name: string, where?: (labels: Labels) => boolean): number {
  const a = sum(before, name, where);
  const b = sum(now, name, where);
  return (b >= a ? b - a : b) / Math.max(0.001, (now.at - before.at) / 1000);
}

/** The time in seconds that a part q of the requests since `before` did not exceed; null: there were none. */
export function quantile(before: Sample, now: Sample, name: string, q: number): number | null {
  const add = (sample: Sample, sign: number, into: Map<number, number>) => {
    for (const one of sample.values.get(name + "_bucket") ?? []) {
      const bound = one.labels.le === "+Inf" ? Infinity : Number(one.labels.le);
      into.set(bound, (into.get(bound) ?? 0) + sign * one.value);
    }
  };
  const buckets = new Map<number, number>();
  add(now, 1, buckets);
  add(before, -1, buckets);
  const sorted = [...buckets].sort((a, b) => a[0] - b[0]);
  const total = sorted.length ? sorted[sorted.length - 1][1] : 0;
  if (total <= 0) return null;
  let low = 0;
  let under = 0;
  for (const [bound, count] of sorted) {
    if (count >= q * total) return bound === Infinity ? low : low + (bound - low) * (count > under ? (q * total - under) / (count - under) : 1);
    low = bound;
    under = count;
  }
  return low;
}
