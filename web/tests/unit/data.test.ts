import { describe, expect, it } from "vitest";
import { between, histogram, parsePrometheus, quantile, total } from "../../src/dashboard/prometheus";
import { pointOf } from "../../src/dashboard/series";
import { levelsOf, readLens, strongest } from "../../src/lens/lens_data";
import { breakRows, columnsOf, drawnToken, rowOf } from "../../src/lens/token_rows";

describe("Prometheus", () => {
  it("reads names, labels and values", () => {
    const samples = parsePrometheus(
      '# HELP a b\na 1\na{x="y, \\"z\\" }",le="+Inf"} 2.5e3 1700000000\nnonsense\nb NaN\n',
    );
    expect(samples.map(({ name, value }) => [name, value])).toEqual([
      ["a", 1],
      ["a", 2500],
      ["b", NaN],
    ]);
    expect(samples[1]?.labels).toEqual({ x: 'y, "z" }', le: "+Inf" });
    expect(total(samples, ["a"])).toBe(2501);
    expect(total(samples, ["c"])).toBeUndefined();
  });
  it("finds quantiles between two readings", () => {
    const text = (a: number, b: number): string =>
      `t_bucket{le="1"} ${a}\nt_bucket{le="2"} ${b}\nt_bucket{le="+Inf"} ${b}\n`;
    const read = (a: number, b: number) => histogram(parsePrometheus(text(a, b)), ["t"]);
    expect(quantile(between(read(5, 5), read(5, 15)), 0.5)).toBe(1.5);
    expect(quantile(between(read(5, 5), read(5, 5)), 0.5)).toBeUndefined();
    expect(quantile(between(read(50, 90), read(2, 4)), 0.5)).toBe(1);
  });
  it("counts anew after a restart of the server", () => {
    const reading = (at: number, n: number) => ({
      at,
      samples: parsePrometheus(`fathom_generation_tokens_total ${n}`),
    });
    expect(pointOf(reading(0, 100), reading(2, 300)).generated).toBe(100);
    expect(pointOf(reading(0, 1000), reading(2, 60)).generated).toBe(30);
    expect(pointOf(reading(0, 1), reading(2, 2)).running).toBeUndefined();
  });
});

const answer = (): Record<string, unknown> => ({
  tokens: ["a", "b", "c"].map((text, id) => ({ id, text })),
  top_k: 2,
  layers: [
    {
      layer: 3,
      queries: [{ position: 2, selected: [2, 0], scores: [1, 5], recall: null }],
      map: { rows: 1, cols: 3, row_positions: [2], data: btoa("\x00\x7f\xff") },
      expert_load: [1, 2],
    },
  ],
});

describe("lens", () => {
  it("orders what is selected, with its scores", () => {
    const query = readLens(answer()).layers[0]?.queries.get(2);
    expect([...(query?.selected ?? [])]).toEqual([0, 2]);
    expect([...(query?.scores ?? [])]).toEqual([5, 1]);
    expect(query?.recall).toBeUndefined();
    expect([...levelsOf(query, 3)]).toEqual([7, 0, 1]);
    expect(query && strongest(query, 1)).toEqual([{ position: 0, score: 5 }]);
  });
  it("adds queries to what is known", () => {
    const first = readLens(answer());
    const more = { layers: [{ layer: 3, queries: [{ position: 1, selected: [1], scores: [0], recall: 0.5 }] }] };
    const both = readLens(more, first);
    expect([...(both.layers[0]?.queries.keys() ?? [])].sort()).toEqual([1, 2]);
    expect(both.layers[0]?.map?.density[2]).toBe(255);
    expect(both.tokens).toBe(first.tokens);
  });
  it.each([
    ["selected", { queries: [{ position: 2, selected: [9], scores: [1] }] }],
    ["scores", { queries: [{ position: 2, selected: [0, 1], scores: [1] }] }],
    ["position", { queries: [{ position: 3, selected: [], scores: [] }] }],
    ["data", { map: { rows: 2, cols: 3, row_positions: [1, 2], data: btoa("x") } }],
    ["rows", { map: { rows: 1e9, cols: 1e9, row_positions: [], data: "" } }],
  ])("refuses wrong %s, and says where", (where, change) => {
    const json = answer();
    json["layers"] = [{ ...(json["layers"] as object[])[0], ...change }];
    expect(() => readLens(json)).toThrow(where);
  });
});

describe("rows of tokens", () => {
  it("break at line feeds and at the width", () => {
    const rows = breakRows(["aaaa", "bbbb", "c", "\n", "d", "e".repeat(100)], 10);
    expect([...rows.starts]).toEqual([0, 4, 5, 6]);
    expect([0, 3, 4, 5].map((at) => rowOf(rows, at))).toEqual([0, 0, 1, 2]);
    expect(columnsOf(drawnToken("e".repeat(100), 10))).toBe(10);
    expect(columnsOf("世界")).toBe(4);
  });
  it("hold no tokens at all", () => {
    expect(breakRows([], 10)).toEqual({ starts: Uint32Array.of(0), count: 0 });
  });
});
