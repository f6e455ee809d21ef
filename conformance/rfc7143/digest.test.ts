/** See digest.ts. */
import t from 'tap';
import { digest } from './digest.js';
import { demonstrate } from './requirement.js';
import { startTarget } from './target.js';

const target = await startTarget();
t.teardown(() => target.stop());
await demonstrate(digest, target);
