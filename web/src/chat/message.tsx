// One message with what can be done with it.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { branchOf, type ChatNode, type Conversation, pathTo, switchBranch } from "../model/conversation";
import { chatBody, messagesOf, toolsOf } from "../model/request";
import { continueAnswer, regenerate, resend } from "../state/answer";
import { live, liveOf, update } from "../state/session";
import { lensInput } from "../state/lens_input";
import { texts } from "../strings";
import { seconds, whole } from "../text/format";
import { visible } from "../text/visible";
import { CodeDialog } from "../ui/code_dialog";
import { CopyButton, IconButton } from "../ui/controls";
import { Icon } from "../ui/icons";
import { ProblemBox } from "../ui/problem";
import { go } from "../ui/route";
import { MarkdownView, PlainView } from "./markdown_view";
import { NumbersView } from "./numbers_view";
import { TokenView } from "./token_view";
import { ToolCalls, ToolResult } from "./tool_calls";

interface Props {
  conversation: Conversation;
  node: ChatNode;
}

function Branches({ conversation, node }: Props) {
  const { index, count } = branchOf(conversation, node);
  if (count < 2) return null;
  const busy = liveOf(conversation.id) !== undefined;
  const move = (step: number): void => update(switchBranch(conversation, node, step));
  return (
    <span class="branches">
      <IconButton icon="left" label={texts.chat.previous} disabled={busy || index === 0} onClick={() => move(-1)} />
      <span aria-label={texts.chat.branch(index + 1, count)} role="img">
        {index + 1}/{count}
      </span>
      <IconButton icon="right" label={texts.chat.next} disabled={busy || index === count - 1} onClick={() => move(1)} />
    </span>
  );
}

function Reasoning({ node, coming }: { node: ChatNode; coming: boolean }) {
  const thinking = coming && !node.content && !node.toolCalls?.length;
  const [open, setOpen] = useState<boolean | undefined>(); // undefined: open while it comes
  const { reasoningMs, reasoningTokens } = node.numbers ?? {};
  const parts = [
    thinking || reasoningMs === undefined ? texts.chat.reasoning : texts.chat.thoughtFor(seconds(reasoningMs)),
  ];
  if (thinking) parts[0] = texts.chat.thinkingNow;
  if (reasoningTokens !== undefined) parts.push(texts.lens.tokens(whole(reasoningTokens)));
  return (
    <details class={`reasoning ${thinking ? "thinking" : ""}`} open={open ?? thinking}>
      <summary
        onClick={(event) => {
          event.preventDefault();
          setOpen(!(open ?? thinking));
        }}
      >
        <Icon name="sparkle" />
        {parts.join(" · ")}
      </summary>
      {(open ?? thinking) && <PlainView text={node.reasoning ?? ""} />}
    </details>
  );
}

function Editor({ conversation, node, onClose }: Props & { onClose: () => void }) {
  const [text, setText] = useState(node.content);
  const area = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => area.current?.focus(), []);
  const submit = (): void => {
    if (!text.trim() && !node.attachments?.length) return;
    onClose();
    resend(conversation, node, text);
  };
  return (
    <form
      class="editor"
      onSubmit={(event) => (event.preventDefault(), submit())}
      onKeyDown={(event) => {
        if (event.key === "Escape") onClose();
        if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
          event.preventDefault();
          submit();
        }
      }}
    >
      <textarea
        aria-label={texts.chat.editLabel}
        value={text}
        ref={area}
        onInput={(event) => setText(event.currentTarget.value)}
      />
      <div class="row end">
        <button type="button" onClick={onClose}>
          {texts.actions.cancel}
        </button>
        <button type="submit" class="primary">
          {texts.chat.resend}
        </button>
      </div>
    </form>
  );
}

function UserMessage({ conversation, node }: Props) {
  const [editing, setEditing] = useState(false);
  const busy = liveOf(conversation.id) !== undefined;
  return (
    <article class="message user" aria-label={texts.chat.you}>
      {editing ? (
        <Editor conversation={conversation} node={node} onClose={() => setEditing(false)} />
      ) : (
        <div class="bubble">
          {node.attachments?.map((file) => (
            <details class="file" key={file.name}>
              <summary>
                <Icon name="attach" />
                <bdi>{visible(file.name)}</bdi>
              </summary>
              <PlainView text={file.text} />
            </details>
          ))}
          <PlainView text={node.content} />
        </div>
      )}
      {!editing && (
        <div class="actions">
          <Branches conversation={conversation} node={node} />
          <IconButton icon="edit" label={texts.chat.edit} disabled={busy} onClick={() => setEditing(true)} />
          <CopyButton text={() => node.content} />
        </div>
      )}
    </article>
  );
}

function AnswerProblem({ conversation, node }: Props) {
  if (!node.problem) return null;
  const hasText = Boolean(node.content || node.reasoning);
  return (
    <ProblemBox problem={node.problem} hasText={hasText}>
      {node.content && (
        <button type="button" class="primary" onClick={() => continueAnswer(conversation, node)}>
          {texts.chat.continue}
        </button>
      )}
      <button type="button" onClick={() => regenerate(conversation, node)}>
        {texts.actions.retry}
      </button>
    </ProblemBox>
  );
}

// With the system prompt and the tools that it was asked with: the text that the model read.
function openInLens(conversation: Conversation, node: ChatNode): void {
  const settings = node.settings ?? conversation.settings;
  const messages = messagesOf(settings.system, pathTo(conversation, node.id));
  const last = messages.at(-1);
  // The text ends with the answer, and not with the beginning of a next one.
  if (last?.content && !last.tool_calls) last.prefix = true;
  lensInput.value = { kind: "chat", messages, tools: toolsOf(settings) };
  go("lens");
}

function Answer({ conversation, node: committed }: Props) {
  const coming = live.value.get(committed.id);
  const node = coming?.node.value ?? committed;
  const [view, setView] = useState<"text" | "tokens">("text");
  const [codeShown, setCodeShown] = useState(false);
  const busy = liveOf(conversation.id) !== undefined;
  const nothing = !node.content && !node.reasoning && !node.toolCalls?.length;
  return (
    <article
      class={`message answer ${coming ? "coming" : ""}`}
      aria-label={texts.chat.model}
      aria-busy={coming !== undefined}
    >
      {nothing && coming && <p class="waiting">{texts.chat.waiting}</p>}
      {node.reasoning && <Reasoning node={node} coming={coming !== undefined} />}
      {view === "tokens" && node.tokens ? (
        <TokenView packed={node.tokens} />
      ) : (
        node.content && <MarkdownView text={node.content} complete={!coming} />
      )}
      {node.toolCalls && <ToolCalls calls={node.toolCalls} />}
      {node.status === "done" && node.finish !== "length" && !node.content && !node.toolCalls?.length && (
        <p class="muted">{texts.chat.emptyAnswer}</p>
      )}
      {node.finish === "length" && (
        <p class="cut-off muted small">
          {texts.chat.cutOff}{" "}
          {node.content && !busy && (
            <button type="button" class="small" onClick={() => continueAnswer(conversation, node)}>
              {texts.chat.continue}
            </button>
          )}
        </p>
      )}
      {node.status === "stopped" && <p class="muted small">{texts.chat.stopped}</p>}
      {!coming && <AnswerProblem conversation={conversation} node={node} />}
      {!coming && (
        <footer>
          {node.numbers && <NumbersView numbers={node.numbers} />}
          <div class="actions">
            <Branches conversation={conversation} node={node} />
            <CopyButton text={() => node.content} />
            <IconButton
              icon="again"
              label={texts.chat.regenerate}
              disabled={busy}
              onClick={() => regenerate(conversation, node)}
            />
            {node.tokens && (
              <IconButton
                icon="chart"
                label={texts.chat.probabilities}
                pressed={view === "tokens"}
                onClick={() => setView(view === "tokens" ? "text" : "tokens")}
              />
            )}
            <IconButton icon="lens" label={texts.chat.openLens} onClick={() => openInLens(conversation, node)} />
            <IconButton icon="code" label={texts.chat.code} onClick={() => setCodeShown(true)} />
          </div>
        </footer>
      )}
      {codeShown && (
        <CodeDialog
          path="/v1/chat/completions"
          body={chatBody(node.settings ?? conversation.settings, node.model ?? "", pathTo(conversation, node.parent))}
          onClose={() => setCodeShown(false)}
        />
      )}
    </article>
  );
}

export function Message({ conversation, node }: Props) {
  if (node.role === "user") return <UserMessage conversation={conversation} node={node} />;
  if (node.role === "tool")
    return (
      <article class="message" aria-label={texts.tools.result}>
        <ToolResult text={node.content} />
      </article>
    );
  return <Answer conversation={conversation} node={node} />;
}

// For screen readers: that an answer comes, and that it is complete; not every token.
export function AnswerStatus({ conversation }: { conversation: string }) {
  const coming = liveOf(conversation) !== undefined;
  const [text, setText] = useState("");
  useEffect(() => {
    if (coming) setText(texts.chat.answering);
    else setText((before) => (before ? texts.chat.answered : ""));
  }, [coming]);
  return (
    <div class="visually-hidden" role="status" aria-live="polite">
      {text}
    </div>
  );
}
