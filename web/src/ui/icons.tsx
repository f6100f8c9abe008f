// Icons drawn on a 20 × 20 grid; decoration only, the button's label says what it does.
const paths = {
  menu: "M3 5.5h14M3 10h14M3 14.500h14",
  plus: "M10 4v12M4 10h12",
  send: "M10 16V4M5 9l5-5 5 5",
  stop: "M6 6h8v8H6z",
  close: "M5 5l10 10M15 5L5 15",
  copy: "M7 7h9v9H7zM4 13V4h9",
  edit: "M4 16l1-4 8-8 3 3-8 8zM11.5 5.500l3 3",
  again: "M15.5 8A6 6 0 1 0 16 11.500M16 4v4h-4",
  left: "M12 5l-5 5 5 5",
  right: "M8 5l5 5-5 5",
  down: "M10 4v12M5 11l5 5 5-5",
  code: "M7 6l-4 4 4 4M13 6l4 4-4 4",
  lens: "M9 4a5 5 0 1 0 0 10A5 5 0 0 0 9 4M12.6 12.600L17 17",
  chat: "M3.5 5.500a2 2 0 0 1 2-2h9a2 2 0 0 1 2 2v6a2 2 0 0 1-2 2H9l-4 3.500v-3.500a1.5 1.5 0 0 1-1.5-1.500z",
  chart: "M3 17h14M5.5 14V9M10 14V4M14.5 14v-3",
  settings: "M3 6h8M15 6h2M3 14h2M9 14h8M13 4v4M7 12v4",
  attach: "M14 9.500l-4.8 4.800a2.9 2.9 0 0 1-4.1-4.100l6-6a2 2 0 0 1 2.8 2.800l-5.8 5.800a.9.9 0 0 1-1.3-1.300l5-5",
  more: "M5 10h.01M10 10h.01M15 10h.01",
  trash: "M4 6h12M8 6V4h4v2M6 6l.7 10h6.600L14 6",
  sparkle: "M10 3l1.6 5.400L17 10l-5.4 1.600L10 17l-1.6-5.400L3 10l5.4-1.600z",
  tool: "M12.5 3.500a4 4 0 0 0-3.6 5.600L3.5 14.500l2 2 5.4-5.400a4 4 0 0 0 5.4-4.900l-2.6 2.3-2.1-2.1 2.3-2.600a4 4 0 0 0-1.4-.3z",
  pause: "M7 5v10M13 5v10",
  play: "M7 4.500l8 5.5-8 5.500z",
};

export type IconName = keyof typeof paths;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class={`icon icon-${name}`} viewBox="0 0 20 20" aria-hidden="true" focusable="false">
      <path d={paths[name]} />
    </svg>
  );
}
