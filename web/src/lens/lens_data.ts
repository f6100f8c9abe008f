// Answers of POST /v1/lens (web/README.md has the contract), checked and held in typed arrays.
import { texts } from "../strings";

export interface LensQuery {
  position: number;
  selected: Uint32Array; // positions, ascending
  scores: Float32Array; // of the same tokens
  recall: number | undefined; // against dense attention
}

export interface LensMap {
  rows: number;
  cols: number;
  rowPositions: Uint32Array; // the query that a row shows
  density: Uint8Array; // row by row; 255: every key of the cell is attended to, or the densest
}

export interface LensLayer {
  layer: number;
  queries: Map<number, LensQuery>;
  map: LensMap | undefined;
  expertLoad: Float32Array | undefined; // tokens by expert
}

export interface LensCost {
  denseFlops: number;
  sparseFlops: number;
  denseBytes: number;
  sparseBytes: number;
}

export interface LensResult {
  tokens: string[];
  layers: LensLayer[];
  cost: LensCost | undefined;
  topK: number;
}

type Json = Record<string, unknown>;
const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);

class Unexpected extends Error {}
const expect = (holds: boolean, where: string): void => {
  if (!holds) throw new Unexpected(`${texts.lens.control} ${where}`);
};
const list = (value: unknown, where: string): unknown[] => {
  expect(Array.isArray(value), where);
  return value as unknown[];
};
const finite = (value: unknown, where: string): number => {
  expect(typeof value === "number" && Number.isFinite(value), where);
  return value as number;
};

function readQuery(value: unknown, where: string, length: number): LensQuery {
  expect(isObject(value), where);
  const { position, selected, scores, recall } = value as Json;
  const positions = Uint32Array.from(list(selected, `${where}.selected`) as number[]);
  const weights = Float32Array.from(list(scores, `${where}.scores`) as number[]);
  expect(positions.length === weights.length, `${where}.scores`);
  expect(
    positions.every((at) => at < length),
    `${where}.selected`,
  );
  const order = Uint32Array.from(positions.keys()).sort((a, b) => (positions[a] ?? 0) - (positions[b] ?? 0));
  const at = finite(position, `${where}.position`);
  expect(Number.isInteger(at) && at >= 0 && at < length, `${where}.position`);
  return {
    position: at,
    selected: positions.slice().sort(),
    scores: Float32Array.from(order, (i) => weights[i] ?? 0),
    recall: typeof recall === "number" ? recall : undefined,
  };
}

function readMap(value: unknown, where: string): LensMap | undefined {
  if (value === null || value === undefined) return undefined;
  expect(isObject(value), where);
  const { rows, cols, row_positions, data } = value as Json;
  const height = finite(rows, `${where}.rows`);
  const width = finite(cols, `${where}.cols`);
  expect(height > 0 && width > 0 && height * width <= 1 << 24, `${where}.rows`);
  expect(typeof data === "string", `${where}.data`);
  const density = Uint8Array.from(atob(data as string), (character) => character.charCodeAt(0));
  expect(density.length === height * width, `${where}.data`);
  const rowPositions = Uint32Array.from(list(row_positions, `${where}.row_positions`) as number[]);
  expect(rowPositions.length === height, `${where}.row_positions`);
  return { rows: height, cols: width, rowPositions, density };
}

function readLayer(value: unknown, where: string, length: number): LensLayer {
  expect(isObject(value), where);
  const { layer, queries, map, expert_load } = value as Json;
  const read = list(queries, `${where}.queries`).map((query, i) => readQuery(query, `${where}.queries[${i}]`, length));
  return {
    layer: finite(layer, `${where}.layer`),
    queries: new Map(read.map((query) => [query.position, query])),
    map: readMap(map, `${where}.map`),
    expertLoad: Array.isArray(expert_load) ? Float32Array.from(expert_load as number[]) : undefined,
  };
}

// `before`: an earlier answer for the same text; what a new one leaves out (tokens, maps, queries) is taken from it. Throws
// an Error that says which member is not as it should be.
export function readLens(json: unknown, before?: LensResult): LensResult {
  expect(isObject(json), "{}");
  const { tokens, layers, cost, top_k } = json as Json;
  const read =
    tokens === undefined && before
      ? before.tokens
      : list(tokens, "tokens").map((token, i) => {
          expect(isObject(token) && typeof token["text"] === "string", `tokens[${i}].text`);
          return (token as Json)["text"] as string;
        });
  const fresh = list(layers, "layers").map((layer, i) => readLayer(layer, `layers[${i}]`, read.length));
  const merged = before
    ? before.layers.map((old) => {
        const layer = fresh.find((one) => one.layer === old.layer);
        if (!layer) return old;
        return {
          layer: old.layer,
          queries: new Map([...old.queries, ...layer.queries]),
          map: layer.map ?? old.map,
          expertLoad: layer.expertLoad ?? old.expertLoad,
        };
      })
    : fresh;
  const costs = isObject(cost)
    ? {
        denseFlops: finite(cost["dense_flops"], "cost.dense_flops"),
        sparseFlops: finite(cost["sparse_flops"], "cost.sparse_flops"),
        denseBytes: finite(cost["dense_bytes"], "cost.dense_bytes"),
        sparseBytes: finite(cost["sparse_bytes"], "cost.sparse_bytes"),
      }
    : before?.cost;
  return { tokens: read, layers: merged, cost: costs, topK: typeof top_k === "number" ? top_k : (before?.topK ?? 0) };
}

export const kLevels = 7;

// How strongly each token is attended to: 0 not at all, 1 to kLevels by the score between the least and the most of the
// selected ones. One byte a token.
export function levelsOf(query: LensQuery | undefined, length: number): Uint8Array {
  const levels = new Uint8Array(length);
  if (!query) return levels;
  let least = Infinity;
  let most = -Infinity;
  for (const score of query.scores) {
    if (!Number.isFinite(score)) continue;
    least = Math.min(least, score);
    most = Math.max(most, score);
  }
  query.selected.forEach((at, i) => {
    const score = query.scores[i] ?? least;
    const share = most > least ? (score - least) / (most - least) : 1;
    levels[at] = 1 + Math.min(kLevels - 1, Math.max(0, Math.floor(share * kLevels)));
  });
  return levels;
}

// The selected tokens with the largest scores, best first.
export function strongest(query: LensQuery, count: number): { position: number; score: number }[] {
  const all = Array.from(query.selected, (position, i) => ({ position, score: query.scores[i] ?? 0 }));
  return all.sort((a, b) => b.score - a.score || a.position - b.position).slice(0, count);
}
