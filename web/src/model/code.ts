// A request as curl, Python and JavaScript, ready to run against the same server.

export type Language = "curl" | "python" | "javascript";

export interface CodeRequest {
  origin: string;
  path: string;
  body?: object | undefined; // undefined: GET
}

// A JSON text is a Python expression but for three words, which stand outside of strings.
function python(value: unknown, indent: string): string {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value !== "object") return String(value);
  const inner = `${indent}    `;
  const [open, close] = Array.isArray(value) ? ["[", "]"] : ["{", "}"];
  const items = Array.isArray(value)
    ? value.map((item) => python(item, inner))
    : Object.entries(value)
        .filter(([, item]) => item !== undefined)
        .map(([key, item]) => `${JSON.stringify(key)}: ${python(item, inner)}`);
  if (!items.length) return open + close;
  return `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${indent}${close}`;
}

// Within single quotes a shell takes everything as it is, but for the quote itself.
const shellQuoted = (text: string): string => `'${text.replace(/'/g, "'\\''")}'`;

function curl({ origin, path, body }: CodeRequest): string {
  const lines = [`curl ${body && "stream" in body ? "-N " : ""}${shellQuoted(origin + path)}`];
  lines.push(`-H "Authorization: Bearer $FATHOM_API_KEY"`);
  if (body)
    lines.push("-H 'Content-Type: application/json'", `--data-binary ${shellQuoted(JSON.stringify(body, null, 2))}`);
  return lines.join(" \\\n  ");
}

const kOpenAi = new Set(
  (
    "model messages stream stream_options tools temperature top_p presence_penalty frequency_penalty seed max_tokens stop " +
    "logprobs top_logprobs"
  ).split(" "),
);

function pythonOf({ origin, path, body }: CodeRequest): string {
  if (path !== "/v1/chat/completions" || !body) {
    const call = body ? `post(url, headers=headers, json=${python(body, "")})` : "get(url, headers=headers)";
    return `import os
import requests  # pip install requests

url = ${JSON.stringify(origin + path)}
headers = {"Authorization": "Bearer " + os.environ.get("FATHOM_API_KEY", "")}
response = requests.${call}
response.raise_for_status()
print(response.text)
`;
  }
  const known = Object.entries(body).filter(([name]) => kOpenAi.has(name));
  const extra = Object.fromEntries(Object.entries(body).filter(([name]) => !kOpenAi.has(name)));
  const members = known.map(([name, value]) => `    ${name}=${python(value, "    ")},\n`).join("");
  const extras = Object.keys(extra).length ? `    extra_body=${python(extra, "    ")},\n` : "";
  return `import os
from openai import OpenAI  # pip install openai

client = OpenAI(base_url=${JSON.stringify(`${origin}/v1`)}, api_key=os.environ.get("FATHOM_API_KEY", "none"))
stream = client.chat.completions.create(
${members}${extras})
for chunk in stream:
    for choice in chunk.choices:
        text = getattr(choice.delta, "reasoning_content", None) or choice.delta.content
        if text:
            print(text, end="", flush=True)
print()
`;
}

function javascript({ origin, path, body }: CodeRequest): string {
  const options = body
    ? `{
  method: "POST",
  headers: {
    "Content-Type": "application/json",
    Authorization: \`Bearer \${process.env.FATHOM_API_KEY ?? ""}\`,
  },
  body: JSON.stringify(${JSON.stringify(body, null, 2).replace(/\n/g, "\n  ")}),
}`
    : `{
  headers: { Authorization: \`Bearer \${process.env.FATHOM_API_KEY ?? ""}\` },
}`;
  const read =
    body && "stream" in body
      ? `let buffer = "";
for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
  buffer += text;
  const events = buffer.split("\\n\\n");
  buffer = events.pop();
  for (const event of events) {
    if (!event.startsWith("data: ") || event === "data: [DONE]") continue;
    const delta = JSON.parse(event.slice(6)).choices?.[0]?.delta ?? {};
    process.stdout.write(delta.reasoning_content ?? delta.content ?? "");
  }
}
`
      : "console.log(await response.text());\n";
  return `const response = await fetch(${JSON.stringify(origin + path)}, ${options});
if (!response.ok) throw new Error(await response.text());
${read}`;
}

export function codeFor(language: Language, request: CodeRequest): string {
  return { curl, python: pythonOf, javascript }[language](request);
}
