// Where questions are written and files are attached.
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { type Attachment, type ChatNode, openCalls, pathOf } from "../model/conversation";
import { chatBody, messagesOf, toolsOf } from "../model/request";
import { send, stop } from "../state/answer";
import { current, draftOf, liveOf, modelOf, setDraft, tell } from "../state/session";
import { texts } from "../strings";
import { compact, whole } from "../text/format";
import { decodeText, visible } from "../text/visible";
import { CodeDialog } from "../ui/code_dialog";
import { IconButton } from "../ui/controls";
import { Icon } from "../ui/icons";
import { useTokenCount } from "./token_count";

const kLargestFile = 4 << 20; // bytes: above what any context here holds

async function readFiles(list: File[]): Promise<Attachment[]> {
  const read: Attachment[] = [];
  for (const file of list) {
    if (file.size > kLargestFile) {
      tell(texts.chat.tooLarge(visible(file.name), compact(kLargestFile, "B", 1024)));
      continue;
    }
    const text = decodeText(await file.arrayBuffer());
    if (text === undefined) tell(texts.chat.notText(visible(file.name)));
    else read.push({ name: file.name, text });
  }
  return read;
}

function ContextMeter({ count, limit }: { count: number; limit: number | undefined }) {
  const over = count === Infinity || (limit !== undefined && count >= limit);
  const words =
    count === Infinity
      ? texts.chat.contextOver
      : limit === undefined
        ? texts.lens.tokens(whole(count))
        : texts.chat.context(whole(count), whole(limit));
  return (
    <span class={`context-meter ${over ? "over" : ""}`} title={over ? texts.chat.contextOver : texts.chat.usedOf}>
      {limit !== undefined && (
        <meter min={0} max={limit} value={Math.min(count, limit)} aria-label={texts.chat.usedOf} />
      )}
      {words}
    </span>
  );
}

export function Composer() {
  const conversation = current.value;
  const { text: draft, files } = draftOf(conversation.id);
  const [codeShown, setCodeShown] = useState(false);
  const area = useRef<HTMLTextAreaElement>(null);
  const picker = useRef<HTMLInputElement>(null);
  const coming = liveOf(conversation.id) !== undefined;
  const path = pathOf(conversation);
  const model = modelOf(conversation.settings);
  const waitsForTools = openCalls(path).length > 0;

  // Before it is painted: what is typed as soon as it shows goes into it.
  useLayoutEffect(() => {
    if (matchMedia("(hover: hover)").matches) area.current?.focus();
  }, [conversation.id]);
  useLayoutEffect(() => {
    const element = area.current;
    if (!element) return;
    element.style.height = "auto";
    element.style.height = `${Math.min(element.scrollHeight + 2, innerHeight * 0.4)}px`;
  }, [draft]);

  const next = useMemo((): ChatNode[] => {
    if (!draft.trim() && !files.length) return path;
    return [...path, { id: "", parent: null, role: "user", content: draft, attachments: files, created: 0 }];
  }, [draft, files, conversation]);
  const counted = useTokenCount(
    model?.id ?? "",
    coming ? [] : messagesOf(conversation.settings.system, next),
    toolsOf(conversation.settings),
  );
  const limit = model?.context_length ?? counted?.limit;

  const submit = (): void => {
    if (coming || waitsForTools || (!draft.trim() && !files.length)) return;
    send(conversation, draft, files);
    setDraft(conversation.id, { text: "", files: [] });
  };
  const attach = (list: FileList | null): void => {
    // A copy at once: the list empties when the field is reset.
    const { id } = conversation;
    if (list) void readFiles([...list]).then((read) => setDraft(id, { files: [...draftOf(id).files, ...read] }));
  };

  return (
    <form
      class="composer"
      onSubmit={(event) => (event.preventDefault(), submit())}
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => {
        event.preventDefault();
        attach(event.dataTransfer?.files ?? null);
      }}
    >
      {files.length > 0 && (
        <ul class="files" aria-label={texts.chat.attached}>
          {files.map((file, i) => (
            <li key={i}>
              <Icon name="attach" />
              <bdi>{visible(file.name)}</bdi>
              <IconButton
                icon="close"
                label={texts.chat.removeFile(visible(file.name))}
                onClick={() => setDraft(conversation.id, { files: files.filter((_, at) => at !== i) })}
              />
            </li>
          ))}
        </ul>
      )}
      <textarea
        ref={area}
        rows={1}
        dir="auto"
        aria-label={texts.chat.ask}
        placeholder={texts.chat.placeholder}
        value={draft}
        onInput={(event) => setDraft(conversation.id, { text: event.currentTarget.value })}
        onKeyDown={(event) => {
          if (event.key === "Escape" && coming) stop(conversation.id);
          if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
          event.preventDefault();
          submit();
        }}
      />
      <div class="composer-bar">
        <IconButton icon="attach" label={texts.chat.attach} onClick={() => picker.current?.click()} />
        <IconButton icon="code" label={texts.chat.code} onClick={() => setCodeShown(true)} />
        <input
          ref={picker}
          type="file"
          multiple
          class="visually-hidden"
          tabIndex={-1}
          aria-label={texts.chat.attach}
          onChange={(event) => {
            attach(event.currentTarget.files);
            event.currentTarget.value = "";
          }}
        />
        <span class="grow" />
        {counted && <ContextMeter count={counted.count} limit={limit} />}
        {coming ? (
          <button
            type="button"
            class="primary round"
            aria-label={texts.chat.stop}
            title={texts.chat.stop}
            onClick={() => stop(conversation.id)}
          >
            <Icon name="stop" />
          </button>
        ) : (
          <button
            type="submit"
            class="primary round"
            aria-label={texts.chat.send}
            title={texts.chat.send}
            disabled={waitsForTools || (!draft.trim() && !files.length)}
          >
            <Icon name="send" />
          </button>
        )}
      </div>
      {codeShown && (
        <CodeDialog
          path="/v1/chat/completions"
          body={chatBody(conversation.settings, model?.id ?? "", next)}
          onClose={() => setCodeShown(false)}
        />
      )}
    </form>
  );
}
