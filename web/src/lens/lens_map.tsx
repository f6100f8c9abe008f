// Query × key of one layer: how densely each cell is attended to.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { theme } from "../state/settings";
import { texts } from "../strings";
import { percent, whole } from "../text/format";
import type { LensMap } from "./lens_data";

type Colour = [number, number, number];

function colourOf(name: string): Colour {
  const probe = document.createElement("canvas").getContext("2d");
  if (!probe) return [128, 128, 128];
  probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const hex = probe.fillStyle;
  return [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)) as Colour;
}

// From the ground over the accent to a warm tone. The root draws faint cells out: one key among sixty must be seen.
function ramp(): Uint8ClampedArray {
  const stops = [colourOf("--surface"), colourOf("--accent"), colourOf("--warm")];
  const table = new Uint8ClampedArray(256 * 3);
  for (let i = 0; i < 256; ++i) {
    const at = Math.sqrt(i / 255) * (stops.length - 1);
    const low = Math.min(stops.length - 2, Math.floor(at));
    for (let c = 0; c < 3; ++c) {
      const from = stops[low]?.[c] ?? 0;
      const to = stops[low + 1]?.[c] ?? 0;
      table[3 * i + c] = from + (to - from) * (at - low);
    }
  }
  return table;
}

function imageOf(map: LensMap): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = map.cols;
  canvas.height = map.rows;
  const context = canvas.getContext("2d");
  if (!context) return canvas;
  const colours = ramp();
  const image = context.createImageData(map.cols, map.rows);
  for (let i = 0; i < map.density.length; ++i) {
    const value = map.density[i] ?? 0;
    image.data[4 * i] = colours[3 * value] ?? 0;
    image.data[4 * i + 1] = colours[3 * value + 1] ?? 0;
    image.data[4 * i + 2] = colours[3 * value + 2] ?? 0;
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

interface Props {
  map: LensMap;
  layer: number;
  length: number; // tokens
  query: number;
  onChoose: (query: number, key: number) => void;
}

export function LensMapView({ map, layer, length, query, onChoose }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [cell, setCell] = useState<{ row: number; col: number } | undefined>();
  const [size, setSize] = useState(0);
  const [scheme, setScheme] = useState(0);
  const image = useMemo(() => imageOf(map), [map, theme.value, scheme]);
  const keyOf = (col: number): number => Math.min(length - 1, Math.floor((col * length) / map.cols));

  useEffect(() => {
    const element = canvas.current;
    if (!element) return;
    const observer = new ResizeObserver(() => setSize(element.clientWidth));
    observer.observe(element);
    const media = matchMedia("(prefers-color-scheme: dark)");
    const change = (): void => setScheme((n) => n + 1);
    media.addEventListener("change", change);
    return () => {
      observer.disconnect();
      media.removeEventListener("change", change);
    };
  }, []);

  useEffect(() => {
    const element = canvas.current;
    const context = element?.getContext("2d");
    if (!element || !context || !size) return;
    // At least one pixel a cell, so that no needle is lost in drawing.
    const scale = Math.max(devicePixelRatio, map.cols / size, map.rows / size);
    element.width = Math.round(size * scale);
    element.height = element.width;
    context.imageSmoothingEnabled = false;
    context.drawImage(image, 0, 0, element.width, element.height);
    const row = map.rowPositions.findIndex((position) => position >= query);
    const [r, g, b] = colourOf("--ink");
    context.strokeStyle = `rgb(${r} ${g} ${b} / 60%)`;
    context.lineWidth = scale;
    const y = ((row + 0.5) * element.height) / map.rows;
    if (row >= 0) {
      context.setLineDash([4 * scale, 4 * scale]);
      context.beginPath();
      context.moveTo(0, y);
      context.lineTo(element.width, y);
      context.stroke();
    }
    if (cell) {
      context.setLineDash([]);
      const w = element.width / map.cols;
      const h = element.height / map.rows;
      context.strokeStyle = `rgb(${r} ${g} ${b})`;
      context.strokeRect(cell.col * w - 2 * scale, cell.row * h - 2 * scale, w + 4 * scale, h + 4 * scale);
    }
  }, [image, size, query, cell]);

  const cellAt = (event: MouseEvent): { row: number; col: number } => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    const share = (at: number, all: number, count: number): number =>
      Math.max(0, Math.min(count - 1, Math.floor((at / all) * count)));
    return {
      row: share(event.clientY - box.top, box.height, map.rows),
      col: share(event.clientX - box.left, box.width, map.cols),
    };
  };
  const choose = (at: { row: number; col: number }): void => onChoose(map.rowPositions[at.row] ?? 0, keyOf(at.col));
  const onKeyDown = (event: KeyboardEvent): void => {
    const moves: Record<string, [number, number]> = {
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
    };
    const move = moves[event.key];
    const now = cell ?? { row: map.rows - 1, col: 0 };
    if (move) {
      event.preventDefault();
      const far = event.shiftKey ? 10 : 1;
      setCell({
        row: Math.max(0, Math.min(map.rows - 1, now.row + move[0] * far)),
        col: Math.max(0, Math.min(map.cols - 1, now.col + move[1] * far)),
      });
    } else if (event.key === "Enter") {
      choose(now);
    }
  };
  const readout = cell
    ? texts.lens.mapAt(
        whole(map.rowPositions[cell.row] ?? 0),
        whole(keyOf(cell.col)),
        percent((map.density[cell.row * map.cols + cell.col] ?? 0) / 255),
      )
    : " ";
  return (
    <div class="lens-map">
      <canvas
        ref={canvas}
        tabIndex={0}
        role="application"
        aria-label={texts.lens.mapLabel(layer)}
        aria-describedby="map-readout"
        onPointerMove={(event) => setCell(cellAt(event))}
        onPointerLeave={() => setCell(undefined)}
        onClick={(event) => choose(cellAt(event))}
        onKeyDown={onKeyDown}
      />
      <p id="map-readout" class="muted small number" aria-live="polite">
        {readout}
      </p>
    </div>
  );
}
