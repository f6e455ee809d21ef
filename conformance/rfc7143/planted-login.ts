/**
 * Put under a daemon by `node --import`: its logins grant a stage to strangers while an answer continues, as they did
 * once (CHAP-23), and nothing behind them looks again. For the test that the fuzzer of logins would find it.
 */
import { register } from 'node:module';

register(new URL('planted-login-hook.js', import.meta.url));
