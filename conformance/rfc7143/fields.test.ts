/** See fields.ts. */
import t from 'tap';
import { fields } from './fields.js';
import { demonstrate } from './requirement.js';
import { startTarget } from './target.js';

const target = await startTarget();
t.teardown(() => target.stop());
await demonstrate(fields, target);
