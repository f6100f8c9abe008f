// The server at work.
import { useEffect, useRef, useState } from "preact/hooks";
import { request } from "../api/client";
import { ApiError } from "../api/error";
import "../style/dashboard.css";
import { texts } from "../strings";
import { compact, three } from "../text/format";
import { visible } from "../text/visible";
import { CodeDialog } from "../ui/code_dialog";
import { IconButton } from "../ui/controls";
import { asProblem, ProblemBox } from "../ui/problem";
import { Chart, type Line } from "./chart";
import { parsePrometheus, type Sample } from "./prometheus";
import { type Point, pointOf, type Reading } from "./series";
import { UsageView } from "./usage";

const kEveryMs = 2000;
const kMostPoints = 300; // ten minutes
const t = texts.dashboard;

const kCharts: { title: string; lines: Line[]; format: (value: number) => string; whole?: boolean; top?: number }[] = [
  {
    title: t.throughput,
    lines: [
      { key: "generated", name: `${t.generated}, ${t.perSecond}`, colour: "--accent" },
      { key: "prompt", name: `${t.prompt}, ${t.perSecond}`, colour: "--warm" },
    ],
    format: (value) => compact(value),
  },
  {
    title: t.requests,
    lines: [
      { key: "running", name: t.running, colour: "--accent" },
      { key: "waiting", name: t.waiting, colour: "--warm" },
    ],
    format: (value) => compact(value),
    whole: true,
    top: 4,
  },
  {
    title: `${t.latency}: ${t.ttft}`,
    lines: [
      { key: "ttft50", name: t.p50, colour: "--accent" },
      { key: "ttft95", name: t.p95, colour: "--warm" },
    ],
    format: (value) => `${three(value)} ms`,
  },
  {
    title: `${t.latency}: ${t.tpot}`,
    lines: [
      { key: "tpot50", name: t.p50, colour: "--accent" },
      { key: "tpot95", name: t.p95, colour: "--warm" },
    ],
    format: (value) => `${three(value)} ms`,
  },
  {
    title: t.cache,
    lines: [
      { key: "hitRate", name: t.hitRate, colour: "--accent", factor: 100 },
      { key: "kvUsed", name: t.kvUsed, colour: "--warm", factor: 100 },
    ],
    format: (value) => `${value.toFixed(0)} %`,
    top: 100,
  },
  {
    title: t.memory,
    lines: [{ key: "resident", name: t.resident, colour: "--accent" }],
    format: (value) => compact(value, "B"),
  },
];

function AllMetrics({ samples }: { samples: Sample[] }) {
  return (
    <details class="all-metrics">
      <summary>{t.all}</summary>
      <div class="table-scroll" tabIndex={0} role="region" aria-label={t.all}>
        <table>
          <thead>
            <tr>
              <th scope="col">{t.metric}</th>
              <th scope="col">{t.value}</th>
            </tr>
          </thead>
          <tbody>
            {samples.map(({ name, labels, value }, i) => (
              <tr key={i}>
                <th scope="row" class="mono">
                  {name}
                  <span class="muted">{Object.entries(labels).map(([key, label]) => ` ${key}=${visible(label)}`)}</span>
                </th>
                <td>{value}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}

export function DashboardPage() {
  const [points, setPoints] = useState<Point[]>([]);
  const [samples, setSamples] = useState<Sample[]>([]);
  const [paused, setPaused] = useState(false);
  const [tick, setTick] = useState(0);
  const [problem, setProblem] = useState<ApiError | undefined>();
  const [codeShown, setCodeShown] = useState(false);
  const before = useRef<Reading>();

  useEffect(() => {
    if (paused) return;
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const poll = async (): Promise<void> => {
      try {
        // A page that nobody sees need not ask.
        if (!document.hidden) {
          const response = await request("/metrics", undefined, abort.signal);
          const now: Reading = { at: Date.now() / 1000, samples: parsePrometheus(await response.text()) };
          setSamples(now.samples);
          const old = before.current;
          before.current = now;
          if (old) setPoints((all) => [...all, pointOf(old, now)].slice(-kMostPoints));
          setProblem(undefined);
          setTick((n) => n + 1);
        }
      } catch (error) {
        if (error instanceof ApiError) setProblem(error);
      }
      if (!abort.signal.aborted) timer = setTimeout(() => void poll(), kEveryMs);
    };
    void poll();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [paused]);

  return (
    <div class="page dashboard">
      <header class="page-head">
        <h1>{t.title}</h1>
        <span class={`live ${paused ? "" : "on"}`}>{paused ? t.paused : `${t.live}, ${t.every}`}</span>
        <span class="grow" />
        <IconButton
          icon={paused ? "play" : "pause"}
          label={paused ? t.resume : t.pause}
          onClick={() => setPaused(!paused)}
        />
        <IconButton icon="code" label={texts.chat.code} onClick={() => setCodeShown(true)} />
      </header>
      {problem && <ProblemBox problem={asProblem(problem)} />}
      <div class="charts">
        {kCharts.map((chart) => (
          <Chart key={chart.title} {...chart} points={points} />
        ))}
      </div>
      {/* The ledger changes with each answer only: a tenth of the polls is enough. */}
      <UsageView tick={Math.floor(tick / 10)} />
      <AllMetrics samples={samples} />
      {codeShown && <CodeDialog path="/v1/usage?by=day" onClose={() => setCodeShown(false)} />}
    </div>
  );
}
