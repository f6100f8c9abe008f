// Tools as they are pasted, and the calculator that is built in.
import type { Tool } from "../api/types";
import { texts } from "../strings";

// The definition that the small model was trained with; larger ones understand it as well.
export const calculatorTool: Tool = {
  type: "function",
  function: {
    name: "calculator",
    description: "Exact arithmetic with two numbers.",
    parameters: {
      type: "object",
      properties: {
        operation: { type: "string", enum: ["add", "subtract", "multiply", "divide"] },
        a: { type: "number" },
        b: { type: "number" },
      },
      required: ["operation", "a", "b"],
    },
  },
};

export type ParsedTools = { tools: Tool[]; problem?: undefined } | { tools?: undefined; problem: string };

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function oneTool(value: unknown, where: string): Tool | string {
  if (!isObject(value)) return `${where}: ${texts.tools.notAnObject}`;
  const inner = value["type"] === "function" && isObject(value["function"]) ? value["function"] : value;
  let name = inner["name"];
  let parameters = inner["parameters"] ?? inner["input_schema"];
  // A bare schema: its title is the name.
  if (typeof name !== "string" && isObject(inner["properties"])) {
    name = typeof inner["title"] === "string" ? inner["title"].replace(/[^A-Za-z0-9_-]+/g, "_") : "function";
    parameters = inner;
  }
  if (typeof name !== "string" || !/^[A-Za-z0-9_-]{1,64}$/.test(name)) return `${where}: ${texts.tools.noName}`;
  if (parameters !== undefined && !isObject(parameters)) return `${where}: ${texts.tools.badParameters}`;
  const tool: Tool = { type: "function", function: { name } };
  if (typeof inner["description"] === "string") tool.function.description = inner["description"];
  if (parameters !== undefined) tool.function.parameters = parameters;
  if (typeof inner["strict"] === "boolean") tool.function.strict = inner["strict"];
  return tool;
}

// Takes a list of tools, one tool, a function {name, parameters}, or a bare JSON schema. Empty text: none.
export function parseTools(text: string): ParsedTools {
  if (!text.trim()) return { tools: [] };
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    return { problem: `${texts.tools.notJson} ${error instanceof Error ? error.message : ""}` };
  }
  const read = (Array.isArray(json) ? json : [json]).map((value, i) =>
    oneTool(value, Array.isArray(json) ? `[${i}]` : texts.tools.tool),
  );
  const problems = read.filter((tool): tool is string => typeof tool === "string");
  if (problems.length) return { problem: problems.join("\n") };
  const tools = read as Tool[];
  const names = tools.map((tool) => tool.function.name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  return twice === undefined ? { tools } : { problem: `${texts.tools.twice} ${twice}` };
}
