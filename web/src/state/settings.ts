// What the browser remembers beside the conversations.
import { effect, signal } from "@preact/signals";
import { type ChatSettings, defaultSettings } from "../model/conversation";

const kKey = "fathom.key";
const kTheme = "fathom.theme";
const kChat = "fathom.chat";

// A browser may refuse storage altogether; then nothing is remembered, and everything else works.
function read(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}
function write(key: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch {
    // As above.
  }
}

export const apiKey = signal(read(kKey) ?? "");
// The key stays in memory alone unless this is ticked.
export const rememberKey = signal(read(kKey) !== null);
effect(() => write(kKey, rememberKey.value && apiKey.value ? apiKey.value : null));

export type Theme = "auto" | "light" | "dark";
const storedTheme = read(kTheme);
export const theme = signal<Theme>(storedTheme === "light" || storedTheme === "dark" ? storedTheme : "auto");
effect(() => {
  write(kTheme, theme.value === "auto" ? null : theme.value);
  if (theme.value === "auto") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme.value;
});

// What a new conversation starts with: the settings that were used last.
export function lastSettings(): ChatSettings {
  try {
    const stored = JSON.parse(read(kChat) ?? "{}") as Partial<ChatSettings>;
    return { ...defaultSettings(), ...stored, sampling: { ...stored.sampling } };
  } catch {
    return defaultSettings();
  }
}
export const rememberSettings = (settings: ChatSettings): void => write(kChat, JSON.stringify(settings));
