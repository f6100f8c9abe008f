// Prometheus' text format, as far as a page needs it.

export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

const kLine = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?$/;
const kLabel = /([a-zA-Z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?\s*/gy;
const kEscapes: Record<string, string> = { n: "\n", "\\": "\\", '"': '"' };

function numberOf(text: string): number {
  if (/^\+?Inf$/i.test(text)) return Infinity;
  if (/^-Inf$/i.test(text)) return -Infinity;
  return Number(text);
}

// Lines that are not samples are skipped.
export function parsePrometheus(text: string): Sample[] {
  const samples: Sample[] = [];
  for (const line of text.split("\n")) {
    const match = line.startsWith("#") ? null : kLine.exec(line.trim());
    if (!match) continue;
    const labels: Record<string, string> = {};
    kLabel.lastIndex = 0;
    for (let label = kLabel.exec(match[2] ?? ""); label; label = kLabel.exec(match[2] ?? ""))
      labels[label[1] ?? ""] = (label[2] ?? "").replace(/\\(.)/g, (_, c: string) => kEscapes[c] ?? c);
    samples.push({ name: match[1] ?? "", labels, value: numberOf(match[3] ?? "") });
  }
  return samples;
}

// The sum over all labels; undefined where the server has no such metric.
export function total(samples: Sample[], names: readonly string[]): number | undefined {
  const found = samples.filter((sample) => names.includes(sample.name));
  return found.length ? found.reduce((sum, sample) => sum + sample.value, 0) : undefined;
}

export type Histogram = { bound: number; count: number }[]; // cumulative, ascending

export function histogram(samples: Sample[], names: readonly string[]): Histogram {
  const counts = new Map<number, number>();
  for (const { name, labels, value } of samples) {
    if (!names.some((wanted) => name === `${wanted}_bucket`) || labels["le"] === undefined) continue;
    const bound = numberOf(labels["le"]);
    counts.set(bound, (counts.get(bound) ?? 0) + value);
  }
  return [...counts].map(([bound, count]) => ({ bound, count })).sort((a, b) => a.bound - b.bound);
}

// What was counted between two readings; a server that has restarted counts from nothing.
export function between(before: Histogram, now: Histogram): Histogram {
  const restarted = (before.at(-1)?.count ?? 0) > (now.at(-1)?.count ?? 0);
  return now.map(({ bound, count }, i) => ({ bound, count: count - (restarted ? 0 : (before[i]?.count ?? 0)) }));
}

// By straight lines within a bucket, as Prometheus does; undefined where nothing was counted.
export function quantile(buckets: Histogram, share: number): number | undefined {
  const all = buckets.at(-1)?.count ?? 0;
  if (!(all > 0)) return undefined;
  const rank = share * all;
  let below = 0;
  let from = 0;
  for (const { bound, count } of buckets) {
    if (count >= rank) {
      if (bound === Infinity) return from;
      return count > below ? from + ((bound - from) * (rank - below)) / (count - below) : bound;
    }
    below = count;
    from = bound;
  }
  return from;
}
