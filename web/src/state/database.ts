// Conversations in the browser's own database. Messages are kept one by one, so that a long conversation need not be
// written anew whenever an answer grows.
import { type DBSchema, type IDBPDatabase, openDB } from "idb";
import type { ChatNode, Conversation } from "../model/conversation";

export type Header = Omit<Conversation, "nodes">;

interface Schema extends DBSchema {
  headers: { key: string; value: Header };
  nodes: { key: [string, string]; value: { conversation: string; node: ChatNode } };
}

let opened: Promise<IDBPDatabase<Schema>> | undefined;

const database = (): Promise<IDBPDatabase<Schema>> =>
  (opened ??= openDB<Schema>("fathom", 1, {
    upgrade(db) {
      db.createObjectStore("headers", { keyPath: "id" });
      db.createObjectStore("nodes", { keyPath: ["conversation", "node.id"] });
    },
  }));

const rangeOf = (conversation: string): IDBKeyRange => IDBKeyRange.bound([conversation], [conversation, []]);

export function headerOf({ nodes: _, ...header }: Conversation): Header {
  return header;
}

export async function listHeaders(): Promise<Header[]> {
  return (await database()).getAll("headers");
}

export async function loadConversation(id: string): Promise<Conversation | undefined> {
  const db = await database();
  const header = await db.get("headers", id);
  if (!header) return undefined;
  const nodes = (await db.getAll("nodes", rangeOf(id))).map(({ node }): ChatNode => {
    if (node.status !== "streaming") return node;
    // The page was closed while it came.
    return { ...node, status: "broken", problem: { kind: "interrupted", status: 0, message: "" } };
  });
  return { ...header, nodes: Object.fromEntries(nodes.map((node) => [node.id, node])) };
}

export async function saveHeader(header: Header): Promise<void> {
  await (await database()).put("headers", header);
}

export async function saveNode(conversation: string, node: ChatNode): Promise<void> {
  await (await database()).put("nodes", { conversation, node });
}

export async function saveConversation(conversation: Conversation): Promise<void> {
  const transaction = (await database()).transaction(["headers", "nodes"], "readwrite");
  await transaction.objectStore("headers").put(headerOf(conversation));
  for (const node of Object.values(conversation.nodes))
    await transaction.objectStore("nodes").put({ conversation: conversation.id, node });
  await transaction.done;
}

export async function deleteConversation(id: string): Promise<void> {
  const transaction = (await database()).transaction(["headers", "nodes"], "readwrite");
  await transaction.objectStore("headers").delete(id);
  await transaction.objectStore("nodes").delete(rangeOf(id));
  await transaction.done;
}
