// The open conversations and the answers that are coming.
import { batch, computed, type Signal, signal } from "@preact/signals";
import { listModels } from "../api/client";
import { ApiError } from "../api/error";
import type { ModelInfo } from "../api/types";
import {
  type Attachment,
  type ChatNode,
  type ChatSettings,
  type Conversation,
  newConversation,
  titleFrom,
} from "../model/conversation";
import { texts } from "../strings";
import { lastSettings, rememberSettings } from "./settings";
import * as database from "./database";

export const models = signal<ModelInfo[]>([]);
export const modelsProblem = signal<ApiError | undefined>(undefined);

export async function refreshModels(): Promise<void> {
  try {
    models.value = await listModels();
    modelsProblem.value = undefined;
  } catch (error) {
    modelsProblem.value = error instanceof ApiError ? error : new ApiError("broken", String(error));
  }
}

// The model that a conversation talks to: its own choice where the server still has it, else the first.
export const modelOf = (settings: ChatSettings): ModelInfo | undefined =>
  models.value.find((model) => model.id === settings.model) ?? models.value[0];

export const headers = signal<database.Header[]>([]);
const loaded = signal<ReadonlyMap<string, Conversation>>(new Map());
const blank = signal<Conversation>(newConversation(lastSettings()));
const currentId = signal<string>(blank.value.id);

// What is on the page; a new conversation is kept only once something was sent.
export const current = computed<Conversation>(() => loaded.value.get(currentId.value) ?? blank.value);

// Answers that are coming, by the message's id.
export interface Live {
  conversation: string;
  node: Signal<ChatNode>;
  abort: AbortController;
}
export const live = signal<ReadonlyMap<string, Live>>(new Map());
export const liveOf = (conversation: string): Live | undefined =>
  [...live.value.values()].find((one) => one.conversation === conversation);

// What is written and not yet sent, by conversation: it stays while other pages and conversations are looked at.
export interface Draft {
  text: string;
  files: Attachment[];
}
const drafts = signal<ReadonlyMap<string, Draft>>(new Map());
export const draftOf = (conversation: string): Draft => drafts.value.get(conversation) ?? { text: "", files: [] };
export function setDraft(conversation: string, change: Partial<Draft>): void {
  const next = { ...draftOf(conversation), ...change };
  const all = new Map(drafts.value);
  if (next.text || next.files.length) all.set(conversation, next);
  else all.delete(conversation);
  drafts.value = all;
}

// A line for the user that goes by itself.
export const notice = signal("");
let noticeTimer: ReturnType<typeof setTimeout> | undefined;
export function tell(text: string): void {
  notice.value = text;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => (notice.value = ""), 6000);
}

// The browser may have no room or no database at all: the conversation goes on, and the user is told.
const kept = (work: Promise<void>): void => void work.catch(() => tell(texts.transfer.storage));

export const conversationOf = (id: string): Conversation | undefined =>
  loaded.value.get(id) ?? (blank.value.id === id ? blank.value : undefined);

// Takes a conversation as it is now, shows it, and keeps it.
export function update(next: Conversation, changed: ChatNode[] = []): void {
  batch(() => {
    if (next.id === blank.value.id) {
      if (!Object.keys(next.nodes).length) {
        blank.value = next;
        return;
      }
      if (!next.title) {
        const first = Object.values(next.nodes).find((node) => node.role === "user");
        next = { ...next, title: titleFrom(first?.content ?? "") };
      }
      blank.value = newConversation(lastSettings());
    }
    loaded.value = new Map(loaded.value).set(next.id, next);
    const header = database.headerOf(next);
    headers.value = [header, ...headers.value.filter((other) => other.id !== next.id)].sort(
      (a, b) => b.updated - a.updated,
    );
    kept(database.saveHeader(header));
    for (const node of changed) kept(database.saveNode(next.id, node));
  });
}

export const keepNode = (conversation: string, node: ChatNode): void => kept(database.saveNode(conversation, node));

export function changeSettings(change: Partial<ChatSettings>): void {
  const settings = { ...current.value.settings, ...change };
  rememberSettings(settings);
  update({ ...current.value, settings });
}

export async function openConversation(id: string): Promise<void> {
  if (!loaded.value.has(id)) {
    const conversation = await database.loadConversation(id).catch(() => undefined);
    if (!conversation) return;
    loaded.value = new Map(loaded.value).set(id, conversation);
  }
  currentId.value = id;
}

export function startConversation(): void {
  blank.value = newConversation(lastSettings());
  currentId.value = blank.value.id;
}

export async function removeConversation(id: string): Promise<void> {
  for (const one of live.value.values()) if (one.conversation === id) one.abort.abort();
  batch(() => {
    const rest = new Map(loaded.value);
    rest.delete(id);
    loaded.value = rest;
    headers.value = headers.value.filter((header) => header.id !== id);
    if (currentId.value === id) startConversation();
  });
  kept(database.deleteConversation(id));
}

export async function importConversations(conversations: Conversation[]): Promise<void> {
  batch(() => {
    const all = new Map(loaded.value);
    for (const conversation of conversations) all.set(conversation.id, conversation);
    loaded.value = all;
    headers.value = [...conversations.map(database.headerOf), ...headers.value].sort((a, b) => b.updated - a.updated);
    const first = conversations[0];
    if (first) currentId.value = first.id;
  });
  kept(Promise.all(conversations.map(database.saveConversation)).then(() => undefined));
}

export async function allConversations(): Promise<Conversation[]> {
  const all = await Promise.all(
    headers.value.map(({ id }) => loaded.value.get(id) ?? database.loadConversation(id).catch(() => undefined)),
  );
  return all.filter((conversation): conversation is Conversation => conversation !== undefined);
}

export async function startSession(): Promise<void> {
  void refreshModels();
  try {
    headers.value = (await database.listHeaders()).sort((a, b) => b.updated - a.updated);
  } catch {
    tell(texts.transfer.storage);
  }
}
