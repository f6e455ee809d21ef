/** Login phase: see login.ts. */
import t from 'tap';
import { login } from './login.js';
import { demonstrate } from './requirement.js';
import { startTarget } from './target.js';

const target = await startTarget({ loginTimeoutMs: 1500 });
t.teardown(() => target.stop());
await demonstrate(login, target);
