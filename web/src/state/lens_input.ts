// What the lens is to look at, set by the page or by an answer's button.
import { signal } from "@preact/signals";
import type { Tool, WireMessage } from "../api/types";

export type LensInput = { kind: "text"; prompt: string } | { kind: "chat"; messages: WireMessage[]; tools: Tool[] };

export const lensInput = signal<LensInput>({ kind: "text", prompt: "" });
