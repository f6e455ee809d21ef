/** See command.ts. */
import t from 'tap';
import { command } from './command.js';
import { demonstrate } from './requirement.js';
import { startTarget } from './target.js';

const target = await startTarget();
t.teardown(() => target.stop());
await demonstrate(command, target);
