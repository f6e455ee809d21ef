/** Waiting for several things that end at once or later, by callbacks. */

/**
 * Calls `begin` with a function that counts one more thing and returns what is to be called when that is over; then
 * `done`, once all of them are over: before this returns, if nothing takes its time.
 */
export function whenAllEnd(begin: (one: () => () => void) => void, done: () => void): void {
  let under = 1;
  const ended = (): void => {
    if (--under === 0) done();
  };
  begin(() => {
    under++;
    return ended;
  });
  ended();
}
