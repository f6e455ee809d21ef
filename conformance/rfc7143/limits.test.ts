/** See limits.ts. */
import { limits } from './limits.js';
import { demonstrate } from './requirement.js';
import { NO_TARGET } from './site.js';

await demonstrate(limits, NO_TARGET);
