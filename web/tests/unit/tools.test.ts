import { describe, expect, it } from "vitest";
import { calculate } from "../../src/model/calculator";
import { codeFor } from "../../src/model/code";
import { TokenLog } from "../../src/model/token_log";
import { parseTools } from "../../src/model/tools";

describe("parseTools", () => {
  it.each([
    ["a list", '[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]'],
    ["one tool", '{"type":"function","function":{"name":"f"}}'],
    ["a function", '{"name":"f","description":"d","parameters":{}}'],
    ["a bare schema", '{"title":"f","type":"object","properties":{"a":{"type":"string"}}}'],
  ])("takes %s", (_, text) => {
    expect(parseTools(text).tools?.map((tool) => tool.function.name)).toEqual(["f"]);
  });
  it.each(["{", "3", '[{"name":"a b"}]', '{"name":"f","parameters":3}', '[{"name":"f"},{"name":"f"}]'])(
    "refuses %s",
    (text) => {
      expect(parseTools(text).problem).toBeTruthy();
    },
  );
});

describe("calculate", () => {
  it.each([
    ['{"operation":"add","a":811,"b":663}', "1474"],
    ['{"operation":"multiply","a":99999,"b":99999}', "9999800001"],
    ['{"operation":"multiply","a":"123456789012345678","b":"987654321"}', "121932631124828531222374638"],
    ['{"operation":"subtract","a":-3,"b":-5}', "2"],
    ['{"operation":"divide","a":7,"b":2}', "3.5"],
    ['{"expression":"2 * (3 + 4) ^ 2"}', "98"],
  ])("%s = %s", (text, value) => expect(calculate(text)).toBe(value));
  it.each([
    "{",
    "null",
    '{"operation":"add","a":1}',
    '{"operation":"pow","a":1,"b":2}',
    '{"expression":"import(1)"}',
    '{"expression":"a = 3"}',
    '{"expression":"9^9^9^9"}',
    '{"expression":"9^99999999"}',
    `{"expression":"${"(".repeat(2000)}"}`,
    '{"operation":"add","a":"__proto__","b":1}',
  ])("answers %s with an error", (text) => expect(calculate(text)).toMatch(/^error: /));
});

describe("TokenLog", () => {
  it("keeps tokens through packing, and shows bytes that are no text", () => {
    const log = new TokenLog();
    log.push({ token: 'a\n"', logprob: -0.5, top_logprobs: [{ token: "b", logprob: -1 }] });
    log.push({ token: "\ufffd", logprob: -2, bytes: [0xe4, 0xb8] });
    const again = new TokenLog(log.packed());
    expect(again.length).toBe(2);
    expect(again.at(0)).toEqual({ text: 'a\n"', logprob: -0.5, top: [{ text: "b", logprob: -1 }] });
    expect(again.at(1)?.text).toBe("\\xe4\\xb8");
    expect(new TokenLog("no json").at(0)).toBeUndefined();
  });
});

describe("codeFor", () => {
  const request = {
    origin: "http://host:8080",
    path: "/v1/chat/completions",
    body: {
      model: "nano",
      messages: [{ role: "user", content: 'it\'s "so"\n$(rm)' }],
      stream: true,
      thinking: { type: "enabled" },
      logprobs: true,
    },
  };
  it("quotes for a shell", () => {
    expect(codeFor("curl", request)).toContain(`it'\\''s \\"so\\"\\n$(rm)`);
  });
  it("writes Python's words", () => {
    const code = codeFor("python", request);
    expect(code).toContain("stream=True");
    expect(code).toMatch(/extra_body=\{\s+"thinking"/);
  });
  it("writes JavaScript that parses", () => {
    const code = codeFor("javascript", request);
    expect(() => new Function(`return async () => { ${code} }`)).not.toThrow();
  });
});
