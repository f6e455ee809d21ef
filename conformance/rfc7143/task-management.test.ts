/** See task-management.ts. */
import t from 'tap';
import { taskManagement } from './task-management.js';
import { demonstrate } from './requirement.js';
import { startTarget } from './target.js';

const target = await startTarget();
t.teardown(() => target.stop());
await demonstrate(taskManagement, target);
