// The conversations that the browser keeps, and what can be done with them as wholes.
import { useRef, useState } from "preact/hooks";
import { exportJson, importText } from "../model/transfer";
import { exportMarkdown } from "../model/transfer_markdown";
import * as session from "../state/session";
import { texts } from "../strings";
import { visible } from "../text/visible";
import { Dialog, IconButton, Menu } from "./controls";
import { go } from "./route";

function save(name: string, type: string, text: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const fileName = (title: string, extension: string): string =>
  `${
    title
      .replace(/[^\p{L}\p{N}]+/gu, "-")
      .replace(/^-+|-+$/g, "")
      .slice(0, 50) || "conversation"
  }.${extension}`;

function RenameDialog({ onClose }: { onClose: () => void }) {
  const conversation = session.current.value;
  const [title, setTitle] = useState(conversation.title);
  return (
    <Dialog title={texts.conversations.rename} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          session.update({ ...conversation, title: title.trim().slice(0, 200) });
          onClose();
        }}
      >
        <input
          autofocus
          onFocus={(event) => event.currentTarget.select()}
          aria-label={texts.conversations.rename}
          value={title}
          maxLength={200}
          onInput={(event) => setTitle(event.currentTarget.value)}
        />
        <div class="row end">
          <button type="button" onClick={onClose}>
            {texts.actions.cancel}
          </button>
          <button type="submit" class="primary">
            {texts.actions.save}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function RemoveDialog({ onClose }: { onClose: () => void }) {
  const { id, title } = session.current.value;
  return (
    <Dialog title={texts.conversations.remove} onClose={onClose}>
      <p>{texts.conversations.removeQuestion}</p>
      <p class="muted">{visible(title)}</p>
      <div class="row end">
        <button type="button" onClick={onClose}>
          {texts.actions.cancel}
        </button>
        <button
          type="button"
          class="primary danger"
          onClick={() => {
            void session.removeConversation(id);
            onClose();
          }}
        >
          {texts.actions.remove}
        </button>
      </div>
    </Dialog>
  );
}

export function ConversationList({ onChosen }: { onChosen: () => void }) {
  const picker = useRef<HTMLInputElement>(null);
  const [dialog, setDialog] = useState<"rename" | "remove" | undefined>();
  const conversation = session.current.value;
  const kept = session.headers.value.some((header) => header.id === conversation.id);

  const importFile = async (input: HTMLInputElement): Promise<void> => {
    const file = input.files?.[0];
    input.value = "";
    if (!file) return;
    const imported = importText(await file.text());
    if (imported.problem !== undefined) {
      session.tell(imported.problem);
      return;
    }
    await session.importConversations(imported.conversations);
    session.tell(texts.transfer.imported(imported.conversations.length));
    go("chat");
  };

  const choose = (id: string): void => {
    void session.openConversation(id);
    go("chat");
    onChosen();
  };
  const items = [
    { label: texts.conversations.import, action: () => picker.current?.click() },
    {
      label: texts.conversations.exportAll,
      action: () =>
        void session.allConversations().then((all) => save("conversations.json", "application/json", exportJson(all))),
    },
  ];
  if (kept)
    items.unshift(
      { label: texts.actions.rename, action: () => setDialog("rename") },
      {
        label: texts.conversations.exportMarkdown,
        action: () => save(fileName(conversation.title, "md"), "text/markdown", exportMarkdown(conversation)),
      },
      {
        label: texts.conversations.exportJson,
        action: () => save(fileName(conversation.title, "json"), "application/json", exportJson([conversation])),
      },
    );
  const removal = { label: texts.actions.remove, action: () => setDialog("remove"), danger: true };

  return (
    <section class="conversations" aria-label={texts.conversations.list}>
      <div class="row">
        <IconButton
          icon="plus"
          class="new-chat"
          label={texts.conversations.create}
          text={texts.conversations.create}
          onClick={() => {
            session.startConversation();
            go("chat");
            onChosen();
          }}
        />
        <Menu label={texts.actions.more} icon="more" items={kept ? [...items, removal] : items} />
      </div>
      <input
        ref={picker}
        type="file"
        accept=".json,.md,application/json,text/markdown"
        class="visually-hidden"
        tabIndex={-1}
        aria-label={texts.conversations.import}
        onChange={(event) => void importFile(event.currentTarget)}
      />
      {session.headers.value.length === 0 && <p class="muted small">{texts.conversations.none}</p>}
      <ul>
        {session.headers.value.map((header) => (
          <li key={header.id}>
            <button
              type="button"
              class="quiet"
              aria-current={header.id === conversation.id ? "true" : undefined}
              onClick={() => choose(header.id)}
            >
              <bdi>{visible(header.title) || texts.chat.untitled}</bdi>
            </button>
          </li>
        ))}
      </ul>
      {dialog === "rename" && <RenameDialog onClose={() => setDialog(undefined)} />}
      {dialog === "remove" && <RemoveDialog onClose={() => setDialog(undefined)} />}
    </section>
  );
}
