// Numbers for people.

const kWhole = new Intl.NumberFormat("en-US");

export const whole = (value: number): string => kWhole.format(Math.round(value));

// Three digits that matter: 1.23, 12.3, 123, 1,234.
export function three(value: number): string {
  const size = Math.abs(value);
  return size >= 100 ? whole(value) : value.toFixed(size >= 10 ? 1 : 2);
}

export function seconds(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

// Small sums keep two digits that matter: $0.000013.
export function usd(value: number): string {
  if (value === 0) return "$0";
  if (value >= 0.01) return `$${value.toFixed(value >= 100 ? 0 : value >= 1 ? 2 : 3)}`;
  const digits = Math.min(12, 1 - Math.floor(Math.log10(value)));
  return `$${value.toFixed(digits)}`;
}

// 1.2 K, 3.4 M, 5.6 G, …
export function compact(value: number, unit = "", base = 1000): string {
  const prefixes = base === 1024 ? ["", "Ki", "Mi", "Gi", "Ti", "Pi"] : ["", "K", "M", "G", "T", "P", "E"];
  let at = 0;
  while (Math.abs(value) >= base && at < prefixes.length - 1) {
    value /= base;
    ++at;
  }
  const number = at === 0 && Number.isInteger(value) ? String(value) : three(value);
  return `${number} ${prefixes[at] ?? ""}${unit}`.trim();
}

export const percent = (share: number): string => `${(share * 100).toFixed(share > 0 && share < 0.0995 ? 1 : 0)} %`;
