/** See life.ts. */
import t from 'tap';
import { life } from './life.js';
import { demonstrate } from './requirement.js';
import { startTarget } from './target.js';

const target = await startTarget({ nopIntervalMs: 1000, nopTimeoutMs: 1000 });
t.teardown(() => target.stop());
await demonstrate(life, target);
