/** See access.ts. */
import { access } from './access.js';
import { demonstrate } from './requirement.js';
import { NO_TARGET } from './site.js';

await demonstrate(access, NO_TARGET);
