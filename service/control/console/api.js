// Calls to /api/v1 with the key that this tab holds; every failure becomes one Error with the server's own message.

const STORED = "trimtab-key";
const API = new URL("api/v1/", new URL(".", document.baseURI));

export const hasKey = () => sessionStorage.getItem(STORED) !== null;
export const keepKey = (key) => sessionStorage.setItem(STORED, key);
export const forgetKey = () => sessionStorage.removeItem(STORED);

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function call(method, path, body) {
  const headers = {};
  if (hasKey()) headers.authorization = `Bearer ${sessionStorage.getItem(STORED)}`;
  const form = body instanceof FormData;
  if (body !== undefined && !form) headers["content-type"] = "application/json";
  let reply;
  try {
    reply = await fetch(new URL(path, API), { method, headers, body: form || body === undefined ? body : JSON.stringify(body) });
  } catch {
    throw new ApiError(0, "Trimtab does not answer; is it still running?");
  }
  const answer = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new ApiError(reply.status, answer.error?.message ?? `The server answered ${reply.status}.`);
  return answer;
}

export const get = (path) => call("GET", path);
export const post = (path, body = {}) => call("POST", path, body);
export const aliasPath = (alias, action) => `aliases/${encodeURIComponent(alias)}/${action}`;
