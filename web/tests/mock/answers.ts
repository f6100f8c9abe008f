// Scripted answers: what the model says to which question, and how the connection behaves meanwhile.

export type Step =
  | { delta: object; logprobs?: object[] }
  | { finish: string }
  | { raw: Uint8Array | string } // bytes as they are, to cut characters and lines where one likes
  | { wait: number } // milliseconds
  | { breakOff: true }; // the connection closes

export interface Answer {
  status?: number; // of an error, before the stream
  error?: string;
  headers?: Record<string, string>;
  steps: Step[];
}

const logprob = (token: string, i: number) => ({
  token,
  logprob: [-0.001, -0.08, -0.4, -1.1, -2.3][i % 5] ?? 0,
  bytes: [...new TextEncoder().encode(token)],
  top_logprobs: [
    { token, logprob: [-0.001, -0.08, -0.4, -1.1, -2.3][i % 5] ?? 0, bytes: null },
    { token: " maybe", logprob: -3.1, bytes: null },
    { token: "\u202eevil", logprob: -4.2, bytes: null },
  ],
});

// Words as tokens, which is near enough.
export const wordsOf = (text: string): string[] => text.match(/\s*\S+|\s+$/g) ?? [];

const say = (text: string, wait = 4): Step[] =>
  wordsOf(text).flatMap((word, i): Step[] => [{ delta: { content: word }, logprobs: [logprob(word, i)] }, { wait }]);
const think = (text: string, wait = 4): Step[] =>
  wordsOf(text).flatMap((word): Step[] => [{ delta: { reasoning_content: word } }, { wait }]);
const stop: Step = { finish: "stop" };

const kHostile = `<script>window.pwned = 1</script><img src=x onerror="window.pwned = 2">

[click](javascript:window.pwned=3) [data](data:text/html,<script>window.pwned=4</script>) ![tracker](https://evil.example/pixel.png)

<style>body{display:none}</style><iframe src="https://evil.example"></iframe><form action="https://evil.example"><input name=q></form>

Right to left: \u202eevil gnp.exe\u202c and isolated \u2067abc\u2069. Bell \u0007, escape \u001b[31mred\u001b[0m, null \u0000, zero width \u200b.

Zalgo: Z\u0351\u036b\u0343\u036a\u0302\u036b\u033da\u0334\u0319\u0324\u031e\u0349\u035a\u032f\u031e\u0320\u034dl\u0360\u0489\u0335\u0328g\u0315\u0361o\u0337

$\\href{javascript:window.pwned=5}{x}$ and $\\htmlData{a=b}{y}$ and $$\\def\\a{\\a\\a}\\a$$

\`\`\`html
<img src=x onerror="window.pwned = 6">
\`\`\`

${"W".repeat(60_000)}

| a | b |
|---|---|
| <b onclick="window.pwned=7">x</b> | ${"very-wide-cell-".repeat(80)} |
`;

const kMarkdown = `## A page with everything

Euler: $e^{i\\pi} + 1 = 0$, and on a line of its own

$$\\mathrm{score}_{t,s} = \\sum_{h} w_{t,h}\\,\\mathrm{ReLU}\\left(q_{t,h} \\cdot k_s\\right)$$

1. first, with \`code\`
2. second, with **weight** and *slant*

> A thought somebody else had.

\`\`\`python
def top_k(scores, k):
    """Positions of the k largest."""
    return sorted(range(len(scores)), key=lambda i: -scores[i])[:k]  # ties: the earlier
\`\`\`

| layer | selected | recall |
|---|---:|---:|
| 0 | 2048 | 0.97 |
| 1 | 2048 | 0.93 |

See [the paper](https://example.org/paper).
`;

const kBreaks = "The text so far is kept when the server restarts in the middle of";

interface Ask {
  last: string; // the last message's content
  role: string;
  thinking: boolean;
  prefix: string | undefined; // of an answer that is to be continued
  tools: string[];
}

export function answerFor({ last, role, thinking, prefix, tools }: Ask): Answer {
  if (prefix !== undefined) return { steps: [...say(" it, and the answer goes on from there."), stop] };
  if (role === "tool") return { steps: [...say(`The tool says ${last}.`), stop] };
  const command = /^!([\w-]+)\s*(.*)/s.exec(last);
  switch (command?.[1]) {
    case "hostile":
      return {
        steps: [...think("Thinking <script>window.pwned = 8</script> \u202ebackwards"), ...say(kHostile, 0), stop],
      };
    case "markdown":
      return {
        steps: [...think("The user wants to see **everything**.\nLet me show it."), ...say(kMarkdown, 6), stop],
      };
    case "break":
      return { steps: [...say(kBreaks, 10), { breakOff: true }] };
    case "break-empty":
      return { steps: [{ wait: 30 }, { breakOff: true }] };
    case "error-event":
      return {
        steps: [
          ...say("A few words first", 5),
          {
            raw: `data: ${JSON.stringify({ error: { message: "the server is draining", type: "server_error" } })}\n\n`,
          },
        ],
      };
    case "busy":
      return { status: 503, error: "the queue is full: 64 requests wait", headers: { "retry-after": "3" }, steps: [] };
    case "invalid":
      return { status: 422, error: "temperature: found 7, expected a number from 0 to 2", steps: [] };
    case "split": {
      // Every byte is a chunk of its own: characters, lines and events are all cut.
      const line = `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: "Grüße, 世界 🌊 done" } }] })}\r\n\r\n`;
      const bytes = [...new TextEncoder().encode(line)].map((byte): Step => ({ raw: Uint8Array.of(byte) }));
      const broken = Uint8Array.of(
        ...new TextEncoder().encode('data: {"choices":[{"index":0,"delta":{"content":"bad ['),
        0xc3,
        0x28,
        ...new TextEncoder().encode(']"}}]}\n\n'),
      );
      return { steps: [{ raw: ": keep-alive\n\n" }, ...bytes, { raw: broken }, stop] };
    }
    case "slow":
      return { steps: [...say("one two three four five six seven eight nine ten ".repeat(60), 40), stop] };
    case "long": {
      const words = Number(command[2]) || 20_000;
      const steps: Step[] = [];
      for (let i = 0; i < words; ++i) {
        const content = i % 120 === 119 ? ".\n\n" : i % 600 === 1 ? " **deep**" : ` word${i}`;
        steps.push({ delta: { content }, logprobs: [logprob(content, i)] });
        if (i % 4 === 3) steps.push({ wait: 4 });
      }
      return { steps: [...steps, stop] };
    }
  }
  if (tools.length && /\d/.test(last)) {
    const name = tools.includes("calculator") ? "calculator" : (tools[0] ?? "");
    const [a, b] = (last.match(/\d+/g) ?? []).map(Number);
    const text =
      name === "calculator" ? JSON.stringify({ operation: "add", a, b }) : JSON.stringify({ city: "Kiel", day: a });
    const half = Math.floor(text.length / 2);
    const call = (members: object): Step => ({ delta: { tool_calls: [{ index: 0, ...members }] } });
    return {
      steps: [
        call({
          id: `call_${Math.random().toString(36).slice(2)}`,
          type: "function",
          function: { name, arguments: "" },
        }),
        call({ function: { arguments: text.slice(0, half) } }),
        call({ function: { arguments: text.slice(half) } }),
        { finish: "tool_calls" },
      ],
    };
  }
  const sum = /(\d+)\s*\+\s*(\d+)/.exec(last);
  const text = sum ? `${sum[1]} + ${sum[2]} = ${Number(sum[1]) + Number(sum[2])}.` : `You said: ${last.slice(0, 200)}`;
  return {
    steps: [
      ...(thinking ? think("Let me see.\nOnes, tens, hundreds, with what is carried over.") : []),
      ...say(text),
      stop,
    ],
  };
}
