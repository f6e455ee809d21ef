/**
 * The ordering rules as named steps. The engine asks before each whether to do it; the answer is always yes, except
 * in the tests, which leave one out to show that the power-cut simulator notices (docs/engine.md lists why each is
 * there).
 */
export type Step =
  // open
  | 'open: make superblock copies equal'
  | 'open: ignore a batch that is not whole'
  | 'open: number on behind a torn batch'
  | 'open: skip records of an older epoch than their page'
  | 'open: normalise a page before a record of a later epoch'
  | 'open: count active extents as changed'
  | 'open: rewrite every page that a record touched'
  | 'open: rewrite every page that the list names'
  | 'open: mark unclean before the first write'
  // flush
  | 'commit: capture before the data sync'
  | 'commit: sync data'
  | 'commit: write journal'
  | 'commit: sync journal'
  // checkpoint
  | 'checkpoint: only committed flips'
  | 'checkpoint: not over the only whole twin'
  | 'checkpoint: write first twin'
  | 'checkpoint: sync first twin'
  | 'checkpoint: write second twin'
  | 'checkpoint: sync second twin'
  | 'checkpoint: bitmap after pages'
  | 'checkpoint: write bitmap'
  | 'checkpoint: move tail after pages'
  // enable, disable, rollback
  | 'transition: hold writes'
  | 'transition: flush'
  | 'transition: write superblock'
  | 'transition: sync first copies'
  | 'transition: new epoch'
  | 'rollback: drop'
  // writes
  | 'write: leave the base alone'
  | 'write: mark the unit changed'
  | 'unmap: mark the unit changed'
  | 'activity: list extents before writing in place'
  | 'activity: sync the list'
  | 'activity: unmaps too'
  | 'activity: keep until the page is durable'
  | 'activity: a new generation begins empty'
  // failures
  | 'fail-stop';

export type Steps = (step: Step) => boolean;
export const ALL_STEPS: Steps = () => true;
