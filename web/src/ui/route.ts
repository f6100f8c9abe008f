// Pages by the part of the address behind "#": the server sees one page alone.
import { signal } from "@preact/signals";

export type Page = "chat" | "lens" | "dashboard";

const read = (): Page => {
  const name = location.hash.replace(/^#\/?/, "");
  return name === "lens" || name === "dashboard" ? name : "chat";
};

export const page = signal<Page>(read());
addEventListener("hashchange", () => (page.value = read()));

export const go = (to: Page): void => {
  location.hash = `#/${to}`;
};
