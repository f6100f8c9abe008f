// A conversation.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { openCalls, pathOf } from "../model/conversation";
import { toolsOf } from "../model/request";
import { send } from "../state/answer";
import { changeSettings, current, liveOf, modelOf, models, modelsProblem, refreshModels } from "../state/session";
import { texts } from "../strings";
import { visible } from "../text/visible";
import { IconButton, Switch } from "../ui/controls";
import { asProblem, ProblemBox } from "../ui/problem";
import { Composer } from "./composer";
import { AnswerStatus, Message } from "./message";
import { ConnectionFields, SettingsPanel } from "./settings_panel";
import { ToolAnswerForm } from "./tool_calls";

const kNearEnd = 80; // pixels from the end within which the view follows what comes

// Keeps the end in view while an answer grows, until the reader scrolls away from it or opens a fold.
function useFollow(conversationId: string, coming: boolean) {
  const view = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const following = useRef(true);
  const [away, setAway] = useState(false);
  const toEnd = (): void => {
    following.current = true;
    view.current?.scrollTo({ top: view.current.scrollHeight });
  };
  useLayoutEffect(toEnd, [conversationId, coming]);
  useEffect(() => {
    const element = view.current;
    const inner = content.current;
    if (!element || !inner) return;
    let lastTop = element.scrollTop;
    const onScroll = (): void => {
      const gap = element.scrollHeight - element.scrollTop - element.clientHeight;
      // Only a movement upwards lets go: growing text and late heights move the end, not the reader.
      if (element.scrollTop < lastTop - 2 && gap > kNearEnd) following.current = false;
      else if (gap < kNearEnd) following.current = true;
      lastTop = element.scrollTop;
      setAway(gap > 2 * kNearEnd && !following.current);
    };
    const observer = new ResizeObserver(() => {
      if (following.current) element.scrollTop = element.scrollHeight;
    });
    observer.observe(inner);
    element.addEventListener("scroll", onScroll, { passive: true });
    // What is opened stays where it is read. A key that opens it makes a click as well.
    const onClick = (event: MouseEvent): void => {
      if (event.target instanceof Element && event.target.closest("summary")) following.current = false;
    };
    inner.addEventListener("click", onClick);
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", onScroll);
      inner.removeEventListener("click", onClick);
    };
  }, []);
  return { view, content, away, toEnd };
}

function Welcome() {
  return (
    <div class="welcome">
      <img src="/icon.svg" alt="" width="56" height="56" />
      <h1>{texts.chat.welcome}</h1>
      <p class="muted">{texts.chat.welcomeHint}</p>
      <div class="examples">
        {texts.chat.examples.map((example) => (
          <button key={example} type="button" onClick={() => send(current.value, example, [])}>
            {example}
          </button>
        ))}
      </div>
    </div>
  );
}

function Head({ onSettings }: { onSettings: () => void }) {
  const conversation = current.value;
  const { settings } = conversation;
  const model = modelOf(settings);
  const usesTools = toolsOf(settings).length > 0;
  return (
    <header class="page-head">
      <h1 class="title">
        <bdi>{visible(conversation.title) || texts.chat.untitled}</bdi>
      </h1>
      {models.value.length > 1 ? (
        <select
          class="model"
          aria-label={texts.settings.model}
          value={model?.id}
          onChange={(event) => changeSettings({ model: event.currentTarget.value })}
        >
          {models.value.map(({ id }) => (
            <option key={id} value={id}>
              {id}
            </option>
          ))}
        </select>
      ) : (
        <span class="model muted">{model?.id ?? ""}</span>
      )}
      <Switch
        label={texts.chat.thinking}
        checked={settings.thinking && !usesTools}
        disabled={usesTools || model?.thinking === false}
        hint={usesTools ? texts.tools.thinkingOff : undefined}
        onChange={(thinking) => changeSettings({ thinking })}
      />
      <IconButton icon="settings" label={texts.settings.open} onClick={onSettings} />
    </header>
  );
}

export function ChatPage() {
  const conversation = current.value;
  const path = pathOf(conversation);
  const coming = liveOf(conversation.id) !== undefined;
  const { view, content, away, toEnd } = useFollow(conversation.id, coming);
  const [settingsShown, setSettingsShown] = useState(false);
  const calls = coming ? [] : openCalls(path);
  const problem = modelsProblem.value;
  const last = path.at(-1);
  const wantsKey = problem?.status === 401 || last?.problem?.status === 401;
  return (
    <div class="chat">
      <Head onSettings={() => setSettingsShown(true)} />
      <div class="scroll" ref={view} tabIndex={0} role="region" aria-label={texts.pages.chat}>
        <div class="column" ref={content}>
          {problem && !path.length && (
            <ProblemBox problem={asProblem(problem)}>
              <button type="button" onClick={() => void refreshModels()}>
                {texts.actions.retry}
              </button>
            </ProblemBox>
          )}
          {wantsKey && (
            <div class="panel">
              <ConnectionFields />
            </div>
          )}
          {path.length === 0 && !problem && <Welcome />}
          {path.map((node) => (
            <Message key={node.id} conversation={conversation} node={node} />
          ))}
          {calls.length > 0 && <ToolAnswerForm key={last?.id} conversation={conversation.id} calls={calls} />}
        </div>
      </div>
      <AnswerStatus conversation={conversation.id} />
      <div class="column dock">
        {away && <IconButton icon="down" class="to-end" label={texts.chat.toEnd} onClick={toEnd} />}
        <Composer />
      </div>
      {settingsShown && <SettingsPanel onClose={() => setSettingsShown(false)} />}
    </div>
  );
}
