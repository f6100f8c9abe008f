// What the dashboard draws, out of readings of /metrics.
import { between, type Histogram, histogram, quantile, type Sample, total } from "./prometheus";

// The server's metrics. A name that ends in _total is a counter.
export const kMetrics = {
  generated: ["fathom_generation_tokens_total"],
  prompt: ["fathom_prompt_tokens_total"],
  cached: ["fathom_prompt_tokens_cached_total"],
  running: ["fathom_num_requests_running"],
  waiting: ["fathom_num_requests_waiting"],
  kvUsage: ["fathom_kv_cache_usage_perc"], // a share, 0 to 1
  ttft: ["fathom_time_to_first_token_seconds"],
  tpot: ["fathom_request_time_per_output_token_seconds"],
  resident: ["process_resident_memory_bytes"],
} as const;

export interface Reading {
  at: number; // seconds since 1970
  samples: Sample[];
}

// One moment; undefined: not reported, or nothing happened.
export interface Point {
  at: number;
  generated?: number | undefined; // tokens per second
  prompt?: number | undefined;
  running?: number | undefined;
  waiting?: number | undefined;
  hitRate?: number | undefined; // share of prompt tokens
  kvUsed?: number | undefined; // share of the cache
  ttft50?: number | undefined; // milliseconds
  ttft95?: number | undefined;
  tpot50?: number | undefined;
  tpot95?: number | undefined;
  resident?: number | undefined; // bytes
}

const scaled = (value: number | undefined, factor: number): number | undefined =>
  value === undefined ? undefined : value * factor;

export function pointOf(before: Reading, now: Reading): Point {
  const seconds = Math.max(1e-3, now.at - before.at);
  const grown = (names: readonly string[]): number | undefined => {
    const to = total(now.samples, names);
    const from = total(before.samples, names);
    if (to === undefined || from === undefined) return undefined;
    return to >= from ? to - from : to; // a server that has restarted counts from nothing
  };
  const perSecond = (names: readonly string[]): number | undefined => scaled(grown(names), 1 / seconds);
  const latency = (names: readonly string[], share: number): number | undefined => {
    const buckets: Histogram = between(histogram(before.samples, names), histogram(now.samples, names));
    return scaled(quantile(buckets, share), 1000);
  };
  const prompt = grown(kMetrics.prompt);
  const cached = grown(kMetrics.cached);
  return {
    at: now.at,
    generated: perSecond(kMetrics.generated),
    prompt: perSecond(kMetrics.prompt),
    running: total(now.samples, kMetrics.running),
    waiting: total(now.samples, kMetrics.waiting),
    hitRate: prompt && cached !== undefined ? cached / prompt : undefined,
    kvUsed: total(now.samples, kMetrics.kvUsage),
    ttft50: latency(kMetrics.ttft, 0.5),
    ttft95: latency(kMetrics.ttft, 0.95),
    tpot50: latency(kMetrics.tpot, 0.5),
    tpot95: latency(kMetrics.tpot, 0.95),
    resident: total(now.samples, kMetrics.resident),
  };
}
