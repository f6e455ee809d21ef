/** See portals.ts. */
import { portals } from './portals.js';
import { demonstrate } from './requirement.js';
import { NO_TARGET } from './site.js';

await demonstrate(portals, NO_TARGET);
