/** See planted-login.ts: a loader hook of Node, which changes login.js as it is read. */
import type { LoadHook } from 'node:module';

/** What was mended, and what it was before. Each has to be there, or the fault would not be. */
const MENDED: readonly (readonly [now: RegExp, before: string])[] = [
  [/transit && this\.#authenticated, next\)/, 'transit, next)'],
  [/if \(!this\.#authenticated\)\s+throw new Refusal\(LOGIN_STATUS\.AUTHENTICATION_FAILURE, [^;]+;/, ''],
];

export const load: LoadHook = async (url, context, nextLoad) => {
  const loaded = await nextLoad(url, context);
  if (!url.endsWith('/src/iscsi/login.js')) return loaded;
  let source = loaded.source === undefined ? '' : Buffer.from(loaded.source as Uint8Array).toString();
  for (const [now, before] of MENDED) {
    if (!now.test(source)) throw new Error(`nothing in ${url} is ${now}`);
    source = source.replace(now, before);
  }
  return { ...loaded, source };
};
