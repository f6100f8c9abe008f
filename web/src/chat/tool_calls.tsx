// Calls of an answer, and the form for their results.
import { useState } from "preact/hooks";
import type { ToolCall } from "../api/types";
import { sendResults } from "../state/answer";
import { texts } from "../strings";
import { visible } from "../text/visible";
import { Icon } from "../ui/icons";
import { PlainView } from "./markdown_view";

function pretty(json: string): string {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json; // still coming, or not what it should be: shown as it is
  }
}

export function ToolCalls({ calls }: { calls: ToolCall[] }) {
  return (
    <>
      {calls.map((call, i) => (
        <div class="tool-call" key={call.id || i}>
          <p class="tool-name">
            <Icon name="tool" />
            <span class="visually-hidden">{texts.tools.call}: </span>
            <code>{visible(call.function.name)}</code>
          </p>
          <pre tabIndex={0}>{visible(pretty(call.function.arguments))}</pre>
        </div>
      ))}
    </>
  );
}

export function ToolResult({ text }: { text: string }) {
  return (
    <div class="tool-result">
      <p class="muted small">{texts.tools.result}</p>
      <PlainView text={text} />
    </div>
  );
}

export function ToolAnswerForm({ conversation, calls }: { conversation: string; calls: ToolCall[] }) {
  const [results, setResults] = useState<Record<string, string>>({});
  const compute = async (call: ToolCall): Promise<void> => {
    const { calculate } = await import("../model/calculator");
    setResults((all) => ({ ...all, [call.id]: calculate(call.function.arguments) }));
  };
  return (
    <form
      class="tool-form"
      onSubmit={(event) => {
        event.preventDefault();
        sendResults(
          conversation,
          calls.map((call) => ({ call, result: results[call.id] ?? "" })),
        );
      }}
    >
      {calls.map((call) => (
        <label key={call.id} class="field">
          <span>
            {texts.tools.answer}: <code>{visible(call.function.name)}</code>
          </span>
          <textarea
            rows={2}
            placeholder={texts.tools.answerHint}
            value={results[call.id] ?? ""}
            onInput={(event) => {
              const { value } = event.currentTarget;
              setResults((all) => ({ ...all, [call.id]: value }));
            }}
          />
          {call.function.name === "calculator" && (
            <button type="button" class="small" onClick={() => void compute(call)}>
              {texts.tools.calculate}
            </button>
          )}
        </label>
      ))}
      <div class="row end">
        <button type="submit" class="primary">
          {texts.tools.send}
        </button>
      </div>
    </form>
  );
}
