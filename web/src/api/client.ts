// Requests to the server that the page came from, and to no other.
import { apiKey } from "../state/settings";
import { ApiError, errorOf, isAbort } from "./error";
import type { ModelInfo } from "./types";

// The response of a request that was answered with 2xx. Throws ApiError, or an AbortError when `signal` fired.
export async function request(path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = {};
  if (body !== undefined) headers["content-type"] = "application/json";
  if (apiKey.value) headers["authorization"] = `Bearer ${apiKey.value}`;
  let response: Response;
  try {
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? null : JSON.stringify(body),
      signal: signal ?? null,
      credentials: "omit",
      cache: "no-store",
    });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError("unreachable", error instanceof Error ? error.message : String(error));
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

export async function requestJson<T>(path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const response = await request(path, body, signal);
  try {
    return (await response.json()) as T;
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError("broken", String(error), response.status, response.headers.get("x-request-id") ?? "");
  }
}

export async function listModels(): Promise<ModelInfo[]> {
  const { data } = await requestJson<{ data?: ModelInfo[] }>("/v1/models");
  return Array.isArray(data) ? data.filter((model) => typeof model?.id === "string") : [];
}
