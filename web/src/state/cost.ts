import type { Price } from "../api/types";
import type { Numbers } from "../model/conversation";

// USD, by the server's prices; undefined where tokens or prices are not known.
export function costOf(numbers: Numbers, price: Price | undefined): number | undefined {
  const { promptTokens, cachedTokens = 0, completionTokens } = numbers;
  if (!price || promptTokens === undefined || completionTokens === undefined) return undefined;
  return (
    ((promptTokens - cachedTokens) * price.input + cachedTokens * price.cached + completionTokens * price.output) / 1e6
  );
}
