// Why a request failed, in terms the page can show.

export type ErrorKind = "refused" | "unreachable" | "broken";

export class ApiError extends Error {
  constructor(
    readonly kind: ErrorKind,
    message: string, // the server's own words where it said any
    readonly status = 0, // of HTTP; 0: none came
    readonly requestId = "",
    readonly retryAfter = "", // seconds, as the server said it
  ) {
    super(message);
  }
}

// The message of {"error": {"message"}}, whatever else a proxy may have put there.
export function messageOf(body: unknown): string | undefined {
  if (typeof body !== "object" || body === null) return undefined;
  const error = (body as { error?: unknown }).error;
  if (typeof error === "string") return error;
  if (typeof error !== "object" || error === null) return undefined;
  const message = (error as { message?: unknown }).message;
  return typeof message === "string" ? message : undefined;
}

export async function errorOf(response: Response): Promise<ApiError> {
  const text = (await response.text().catch(() => "")).slice(0, 4000);
  let message: string | undefined;
  try {
    message = messageOf(JSON.parse(text));
  } catch {
    // Not JSON: a proxy's page, most likely. Its status says more than its markup.
  }
  return new ApiError(
    "refused",
    message ?? response.statusText,
    response.status,
    response.headers.get("x-request-id") ?? "",
    response.headers.get("retry-after") ?? "",
  );
}

export const isAbort = (error: unknown): boolean => error instanceof DOMException && error.name === "AbortError";
