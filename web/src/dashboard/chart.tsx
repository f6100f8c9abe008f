// A few lines over the last minutes.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { theme } from "../state/settings";
import { texts } from "../strings";
import type { Point } from "./series";

export interface Line {
  key: Exclude<keyof Point, "at">;
  name: string;
  colour: "--accent" | "--warm" | "--muted";
  factor?: number;
}

interface Props {
  title: string;
  lines: Line[];
  points: Point[];
  format: (value: number) => string;
  whole?: boolean; // counted, not measured
  top?: number; // of the axis at least
}

const kWholeSteps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
const kLeastSpan = 60; // seconds
const kHeight = 150; // pixels
const clock = (at: number): string => new Date(1000 * at).toTimeString().slice(0, 8);
const colourOf = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const dataOf = (lines: Line[], points: Point[]): uPlot.AlignedData => [
  points.map((point) => point.at),
  ...lines.map(({ key, factor = 1 }) =>
    points.map((point) => {
      const value = point[key];
      return value === undefined || !Number.isFinite(value) ? null : value * factor;
    }),
  ),
];

export function Chart({ title, lines, points, format, whole, top = 1 }: Props) {
  const root = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>();
  const last = points.at(-1);

  useEffect(() => {
    const element = root.current;
    if (!element) return;
    const tick = (value: number): string => format(value).replace(/\.0+(?!\d)/, "");
    const build = (): void => {
      plot.current?.destroy();
      const axis = {
        stroke: colourOf("--muted"),
        grid: { stroke: colourOf("--line"), width: 1 },
        ticks: { show: false },
      };
      plot.current = new uPlot(
        {
          width: element.clientWidth,
          height: kHeight,
          legend: { show: false },
          cursor: { show: false },
          scales: {
            x: {
              range: (_, from, to) => {
                const end = to ?? Date.now() / 1000; // null: no points yet
                return [Math.min(from ?? end, end - kLeastSpan), end];
              },
            },
            y: { range: (_, __, most) => [0, Math.max(top, most * 1.1)] },
          },
          axes: [
            { ...axis, space: 80, size: 30, values: (_, values) => values.map(clock) },
            {
              ...axis,
              size: 62,
              ...(whole ? { incrs: kWholeSteps } : {}),
              values: (_, values) => values.map(tick),
            },
          ],
          series: [
            {},
            ...lines.map((line) => ({
              label: line.name,
              stroke: colourOf(line.colour),
              width: 2,
              points: { show: false },
              spanGaps: true,
            })),
          ],
        },
        dataOf(lines, points),
        element,
      );
    };
    build();
    const observer = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: kHeight }));
    observer.observe(element);
    const media = matchMedia("(prefers-color-scheme: dark)");
    media.addEventListener("change", build);
    return () => {
      media.removeEventListener("change", build);
      observer.disconnect();
      plot.current?.destroy();
      plot.current = undefined;
    };
  }, [theme.value]);
  useEffect(() => plot.current?.setData(dataOf(lines, points)), [points]);

  return (
    <section class="card chart">
      <h2>{title}</h2>
      <dl class="now">
        {lines.map(({ key, name, colour, factor = 1 }) => {
          const value = last?.[key];
          return (
            <div key={key}>
              <dt class={`dot ${colour.slice(2)}`}>{name}</dt>
              <dd class="number">{value === undefined ? "–" : format(value * factor)}</dd>
            </div>
          );
        })}
      </dl>
      <div ref={root} role="img" aria-label={texts.dashboard.chart(title)} />
    </section>
  );
}
