// The server's OGC API - Features, as this page reads it. All addresses are relative to the page, so it
// works behind any prefix, and only ever talks to the server that it came from.

const ROOT = new URL('.', document.baseURI);
const TIMEOUT_MS = 20_000;

/** An answer other than 2xx. `retryAfterMs` is the server's Retry-After, if it gave one. */
export class HttpError extends Error {
  constructor(response, detail) {
    super(detail || `${response.status} ${response.statusText}`.trim());
    this.status = response.status;
    const seconds = Number(response.headers.get('Retry-After'));
    this.retryAfterMs = seconds > 0 ? seconds * 1000 : undefined;
  }
}

/** The server can't be reached, or broke off. */
export class ConnectionLost extends Error {}

/** Resolves to `{body, headers}` of a JSON answer. */
async function get(url, accept, signal) {
  try {
    const response = await fetch(url, {
      headers: { Accept: accept },
      cache: 'no-store',
      signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]),
    });
    if (response.ok) return { body: await response.json(), headers: response.headers };
    const problem = await response.json().catch(() => ({})); // RFC 9457, unless a proxy answered
    throw new HttpError(response, problem.detail || problem.title);
  } catch (error) {
    if (signal.aborted || error instanceof HttpError) throw error;
    throw new ConnectionLost(error.message, { cause: error });
  }
}

function itemsUrl(collection, params) {
  const url = new URL(`collections/${encodeURIComponent(collection)}/items`, ROOT);
  for (const [key, value] of Object.entries(params)) {
    if (value !== undefined) url.searchParams.set(key, value);
  }
  return url;
}

/** The landing page; its member `delegate`, where present, is the name of the long-term store. */
export async function landingPage(signal) {
  return (await get(ROOT, 'application/json', signal)).body;
}

/** What each partition and background task is doing; for those who may know. */
export async function status(signal) {
  return (await get(new URL('admin/status', ROOT), 'application/json', signal)).body;
}

/** The feature collections that the server offers. */
export async function collections(signal) {
  const { body } = await get(new URL('collections', ROOT), 'application/json', signal);
  return body.collections.filter((c) => (c.itemType ?? 'feature') === 'feature');
}

/**
 * Features of one tier within `bbox` (CRS84, may cross the antimeridian), page by page up to `most`.
 * Resolves to `{features, matched}`; `matched` is undefined where the server left the count out.
 */
export async function items(collection, { tier, bbox, limit, most = limit }, signal) {
  const features = [];
  let matched;
  let url = itemsUrl(collection, { tier, bbox, limit });
  while (url) {
    const { body: page } = await get(url, 'application/geo+json', signal);
    matched ??= page.numberMatched;
    for (const feature of page.features) features.push(feature);
    const next = page.links?.find((link) => link.rel === 'next');
    // Only the query of the link: its host is the server's public address, which need not be this page's.
    url = next && features.length < most ? itemsUrl(collection, Object.fromEntries(new URL(next.href, ROOT).searchParams)) : null;
  }
  return { features, matched };
}

/** One feature with what the server's headers say about its last change: `{feature, version, modified}`. */
export async function item(collection, id, signal) {
  const url = new URL(`collections/${encodeURIComponent(collection)}/items/${encodeURIComponent(id)}`, ROOT);
  const { body, headers } = await get(url, 'application/geo+json', signal);
  return { feature: body, version: headers.get('ETag'), modified: headers.get('Last-Modified') };
}
