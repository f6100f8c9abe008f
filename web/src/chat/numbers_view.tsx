// What an answer took.
import type { Numbers } from "../model/conversation";
import { texts } from "../strings";
import { seconds, three, usd, whole } from "../text/format";

export function NumbersView({ numbers }: { numbers: Numbers }) {
  const t = texts.numbers;
  const rows: [keyof typeof t.help, string, string][] = [];
  if (numbers.ttftMs !== undefined) rows.push(["ttft", seconds(numbers.ttftMs), t.ttft]);
  if (numbers.tokensPerSecond !== undefined) rows.push(["speed", three(numbers.tokensPerSecond), t.speed]);
  if (numbers.promptTokens !== undefined) rows.push(["prompt", whole(numbers.promptTokens), t.prompt]);
  if (numbers.cachedTokens !== undefined) rows.push(["cached", whole(numbers.cachedTokens), t.cached]);
  if (numbers.completionTokens !== undefined) rows.push(["answer", whole(numbers.completionTokens), t.answer]);
  if (numbers.costUsd !== undefined) rows.push(["cost", usd(numbers.costUsd), t.cost]);
  if (!rows.length) return null;
  return (
    <dl class="numbers" aria-label={t.label}>
      {rows.map(([key, value, name]) => (
        <div key={key} class={`number-${key}`} title={t.help[key]}>
          <dd>{value}</dd>
          <dt>{name}</dt>
        </div>
      ))}
    </dl>
  );
}
