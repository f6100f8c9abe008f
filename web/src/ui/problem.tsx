// What went wrong, in words, and what can be done about it.
import type { ComponentChildren } from "preact";
import type { ApiError } from "../api/error";
import type { Problem } from "../model/conversation";
import { texts } from "../strings";
import { visible } from "../text/visible";

export function wordsFor(problem: Problem, hasText: boolean): string {
  const t = texts.errors;
  if (problem.kind === "unreachable") return t.unreachable;
  if (problem.kind === "interrupted") return t.interrupted;
  if (problem.kind === "broken") return hasText ? t.broken : t.brokenEmpty;
  switch (problem.status) {
    case 401:
    case 403:
      return t.key;
    case 402:
      return t.budget;
    case 404:
      return t.notFound;
    case 413:
      return t.tooLarge;
    case 429:
    case 503:
      return problem.retryAfter ? `${t.busy} ${t.retryIn(problem.retryAfter)}` : t.busy;
    case 200: // an error within a stream
      return hasText ? t.broken : t.brokenEmpty;
    default:
      return problem.status ? t.status(problem.status) : t.unexpected;
  }
}

export const asProblem = (error: ApiError): Problem => ({
  kind: error.kind,
  status: error.status,
  message: error.message,
  retryAfter: error.retryAfter,
});

export function ProblemBox(props: { problem: Problem; hasText?: boolean; children?: ComponentChildren }) {
  const { problem } = props;
  return (
    <div class="problem" role="alert">
      <p>{wordsFor(problem, props.hasText ?? false)}</p>
      {problem.kind === "refused" && problem.message && <p class="details">{visible(problem.message)}</p>}
      {props.children && <div class="row">{props.children}</div>}
    </div>
  );
}
