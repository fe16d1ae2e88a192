// charts: what the server does now, from /metrics: every two seconds while this view is seen, never when the tab is hidden.
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { call } from "../api";
import { number, size } from "../bytes";
import { parse, quantile, rate, type Sample, sum } from "../metrics";
import { useShared } from "../state";
import { Failure } from "../ui";

const PERIOD = 2000;
const KEPT = 300;

interface Series {
  title: string;
  lines: string[];
  of: (before: Sample, now: Sample, db: string) => (number | null)[];
  text: (value: number) => string;
}

const ms = (seconds: number): string => (seconds < 0.001 ? (seconds * 1e6).toFixed(0) + " us" : seconds < 1 ? (seconds * 1000).toFixed(1) + " ms" : seconds.toFixed(2) + " s");
const plain = (value: number): string => (value >= 100 ? number(Math.round(value)) : value.toFixed(1));

const CHARTS: Series[] = [
  {
    title: "Requests a second",
    lines: ["all", "refused or failed"],
    of: (before, now) => [rate(before, now, "cheetah_http_requests_total"), rate(before, now, "cheetah_http_requests_total", (labels) => Number(labels.status) >= 400)],
    text: plain,
  },
  {
    title: "Time of a request",
    lines: ["half", "99 of 100"],
    of: (before, now) => [quantile(before, now, "cheetah_http_request_seconds", 0.5), quantile(before, now, "cheetah_http_request_seconds", 0.99)],
    text: ms,
  },
  {
    title: "Commits a second",
    lines: ["commits", "syncs"],
    of: (before, now) => [rate(before, now, "cheetah_commits_total"), rate(before, now, "cheetah_fsync_total")],
    text: plain,
  },
  { title: "Open streams and connections", lines: ["streams", "connections"], of: (_, now) => [sum(now, "cheetah_streams_open"), sum(now, "cheetah_connections_open")], text: plain },
  { title: "Memory", lines: ["resident", "of requests"], of: (_, now) => [sum(now, "cheetah_resident_bytes"), sum(now, "cheetah_request_memory_bytes")], text: size },
  {
    title: "Size of the database",
    lines: ["files", "values"],
    of: (_, now, db) => [sum(now, "cheetah_database_file_bytes", (labels) => labels.database === db), sum(now, "cheetah_database_bytes", (labels) => labels.database === db)],
    text: size,
  },
];

const colour = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function Chart({ series, times, values }: { series: Series; times: number[]; values: (number | null)[][] }) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>();
  useEffect(() => {
    const element = box.current!;
    const axis = { stroke: () => colour("--quiet"), grid: { stroke: () => colour("--line"), width: 1 }, ticks: { show: false } };
    plot.current = new uPlot(
      {
        width: element.clientWidth || 320,
        height: 160,
        cursor: { show: false },
        legend: { show: false },
        axes: [{ ...axis, space: 80 }, { ...axis, size: 70, values: (_: uPlot, ticks: number[]) => ticks.map((tick) => series.text(tick)) }],
        scales: { y: { range: (_: uPlot, __: number, top: number) => [0, Math.max(top * 1.1, 1e-6)] } },
        series: [{}, ...series.lines.map((label, i) => ({ label, stroke: () => colour(i ? "--second" : "--accent"), width: 2, spanGaps: true }))],
      },
      [[], ...series.lines.map(() => [])] as unknown as uPlot.AlignedData,
      element,
    );
    const observer = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: 160 }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.current?.destroy();
    };
  }, []);
  useEffect(() => {
    plot.current?.setData([times, ...values] as uPlot.AlignedData);
  }, [times]);
  const now = values.map((line) => line[line.length - 1]);
  return (
    <figure class="panel">
      <figcaption>
        <strong>{series.title}</strong>
        <span class="legend">
          {series.lines.map((label, i) => (
            <span key={label} class={i ? "second" : "first"}>
              {label}: {now[i] === null || now[i] === undefined ? "-" : series.text(now[i]!)}
            </span>
          ))}
        </span>
      </figcaption>
      <div ref={box} class="plot" role="img" aria-label={series.title + " over the last ten minutes"} />
    </figure>
  );
}

export function Charts() {
  const shared = useShared();
  const [times, setTimes] = useState<number[]>([]);
  const [values, setValues] = useState<(number | null)[][][]>(CHARTS.map((series) => series.lines.map(() => [])));
  const [error, setError] = useState<unknown>(null);
  const [paused, setPaused] = useState(false);
  useEffect(() => {
    if (paused) return;
    let before: Sample | null = null;
    let stopped = false;
    let timer = 0;
    const control = new AbortController();
    const tick = async () => {
      timer = 0;
      try {
        const answer = await call("GET", "/metrics", { signal: control.signal });
        const now = parse(await answer.text(), Date.now());
        if (stopped) return;
        if (before) {
          const points = CHARTS.map((series) => series.of(before!, now, shared.db));
          setTimes((old) => [...old, now.at / 1000].slice(-KEPT));
          setValues((old) => old.map((lines, i) => lines.map((line, k) => [...line, points[i][k]].slice(-KEPT))));
        }
        before = now;
        setError(null);
      } catch (problem) {
        if (stopped) return;
        setError(problem);
      }
      plan();
    };
    const plan = () => {
      if (!stopped && !timer && !document.hidden) timer = window.setTimeout(tick, PERIOD);
    };
    const seen = () => {
      if (document.hidden) {
        clearTimeout(timer);
        timer = 0;
        before = null;
      } else plan();
    };
    document.addEventListener("visibilitychange", seen);
    if (!document.hidden) tick();
    return () => {
      stopped = true;
      control.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [shared.db, paused]);
  return (
    <>
      <p class="buttons">
        <button type="button" aria-pressed={paused} onClick={() => setPaused(!paused)}>
          {paused ? "Go on" : "Pause"}
        </button>
        <span class="quiet">One small request every two seconds while this is seen; none while the tab is hidden.</span>
      </p>
      <Failure error={error} />
      <div class="charts">
        {CHARTS.map((series, i) => (
          <Chart key={series.title} series={series} times={times} values={values[i]} />
        ))}
      </div>
    </>
  );
}
