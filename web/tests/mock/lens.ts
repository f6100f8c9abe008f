// A lens answer with the shapes of a real one: a band along the diagonal, a sink at the start, and a needle.
import { wordsOf } from "./answers";

interface LensBody {
  messages?: { content: string }[];
  prompt?: string;
  queries?: number[];
  layers?: number[];
  map?: { rows: number; cols: number };
}

const kTopK = 512;
const kLayers = 6;

export function lensAnswer(body: LensBody): object {
  const text = body.prompt ?? (body.messages ?? []).map((message) => message.content).join("\n");
  const tokens = wordsOf(text).map((word, id) => ({ id, text: word }));
  const n = tokens.length;
  const needle = Math.floor(n * 0.37);
  const queries = body.queries ?? [n - 1];
  const layers = body.layers ?? Array.from({ length: kLayers }, (_, i) => i);
  return {
    tokens,
    top_k: kTopK,
    layers: layers.map((layer) => ({
      layer,
      queries: queries.map((position) => {
        const visible = position + 1;
        const count = Math.min(kTopK, visible);
        const scored = Array.from({ length: visible }, (_, s) => {
          const near = Math.exp(-(position - s) / (40 + 30 * layer));
          const hash = ((s * 2654435761) ^ (layer * 40503)) >>> 0;
          return [s, 4 * near + (s < 4 ? 3 : 0) + (s === needle ? 5 : 0) + (hash % 1000) / 800] as const;
        });
        scored.sort((a, b) => b[1] - a[1]);
        const chosen = scored.slice(0, count).sort((a, b) => a[0] - b[0]);
        return {
          position,
          selected: chosen.map(([s]) => s),
          scores: chosen.map(([, score]) => score),
          recall: n <= 4096 ? 0.99 - 0.03 * layer : null,
        };
      }),
      map: body.map ? mapOf(body.map.rows, body.map.cols, n, needle, layer) : null,
      expert_load:
        layer === 0
          ? null
          : Array.from({ length: 16 }, (_, e) => Math.round(n * (0.05 + 0.15 * Math.abs(Math.sin(e * 3 + layer))))),
    })),
    cost: {
      dense_flops: n * n * 4096 * kLayers,
      sparse_flops: n * Math.min(n, kTopK) * 4096 * kLayers + n * n * 64 * kLayers,
      dense_bytes: n * 1152 * kLayers,
      sparse_bytes: Math.min(n, kTopK) * 1152 * kLayers + n * 132 * kLayers,
    },
  };
}

function mapOf(wantedRows: number, wantedCols: number, n: number, needle: number, layer: number): object {
  const rows = Math.min(wantedRows, n);
  const cols = Math.min(wantedCols, n);
  const data = Buffer.alloc(rows * cols);
  const rowPositions: number[] = [];
  for (let r = 0; r < rows; ++r) {
    const query = Math.floor(((r + 1) * n) / rows) - 1;
    rowPositions.push(query);
    for (let c = 0; c < cols; ++c) {
      const key = Math.floor((c * n) / cols);
      if (key > query) continue;
      const near = Math.exp(-(query - key) / (n * (0.03 + 0.02 * layer)));
      const hash = (((r * 73856093) ^ (c * 19349663)) >>> 0) % 100;
      let density = near * 230 + (c < 2 ? 120 : 0) + (hash < 8 ? 40 : 0);
      if (Math.floor((needle * cols) / n) === c && r > rows * 0.6) density = 255;
      data[r * cols + c] = Math.min(255, density);
    }
  }
  return { rows, cols, row_positions: rowPositions, data: data.toString("base64") };
}
