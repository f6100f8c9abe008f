// The built-in calculator: what a call of it returns. Loaded when the first call comes.
import {
  addDependencies,
  bignumberDependencies,
  create,
  divideDependencies,
  evaluateDependencies,
  type FactoryFunctionMap,
  formatDependencies,
  multiplyDependencies,
  powDependencies,
  subtractDependencies,
  unaryMinusDependencies,
} from "mathjs";

// 64 digits, so that products of the numbers that models ask for are exact. Only arithmetic is there to be called: no
// units, matrices, assignments of functions or further parsing.
const dependencies = {
  addDependencies,
  bignumberDependencies,
  divideDependencies,
  evaluateDependencies,
  formatDependencies,
  multiplyDependencies,
  powDependencies,
  subtractDependencies,
  unaryMinusDependencies,
} as FactoryFunctionMap; // the typings forget that every member is there
const math = create(dependencies, { number: "BigNumber", precision: 64 });

const kSigns: Record<string, string> = { add: "+", subtract: "-", multiply: "*", divide: "/" };
const kLongest = 1000; // characters: a limit to the work

function evaluate(expression: string): string {
  if (expression.length > kLongest) throw new Error(`the expression has more than ${kLongest} characters`);
  // Digits, signs and brackets: no names, hence nothing to call and nothing to assign. Exponents are kept small, as
  // 9^9^9^9 would never end.
  if (!/^[\d\s.+\-*/()^eE×÷−]*$/.test(expression)) throw new Error("only numbers, + - * / ^ and brackets are allowed");
  if ((expression.match(/\^/g) ?? []).length > 1 || /\^\s*\(*\s*-?\d{4,}/.test(expression))
    throw new Error("powers are limited to one, with an exponent below 1000");
  const value: unknown = math.evaluate(expression.replace(/×/g, "*").replace(/÷/g, "/").replace(/−/g, "-"));
  return math.format(value, { notation: "auto", precision: 64, lowerExp: -20, upperExp: 64 });
}

// `argumentsText`: JSON, {operation, a, b} or {expression}. A wrong one is answered with the reason, for the model to read.
export function calculate(argumentsText: string): string {
  try {
    const json: unknown = JSON.parse(argumentsText);
    if (typeof json !== "object" || json === null) throw new Error("expected an object");
    const { operation, a, b, expression } = json as Record<string, unknown>;
    if (typeof expression === "string") return evaluate(expression);
    const sign = typeof operation === "string" ? kSigns[operation] : undefined;
    if (!sign) throw new Error(`operation: expected one of ${Object.keys(kSigns).join(", ")}`);
    for (const [name, value] of [
      ["a", a],
      ["b", b],
    ] as const)
      if (typeof value !== "number" && !(typeof value === "string" && /^-?[\d.]+$/.test(value)))
        throw new Error(`${name}: expected a number`);
    return evaluate(`(${a as number}) ${sign} (${b as number})`);
  } catch (error) {
    return `error: ${error instanceof Error ? error.message : String(error)}`;
  }
}
