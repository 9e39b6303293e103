import { defineDriver } from 'khorus/driver';

/** A clock that must not lose its ticks. */
export default defineDriver({
  name: 'clock',
  compatible: 'clock-v1',
  create: (ctx) => ({ ticks: ctx.random().u64() }),
  serialize: (ctx) => {
    ctx.root.u64('ticks', ctx.state.ticks);
  },
  restore: (ctx) => ({ ticks: ctx.node.property('ticks')?.u64('little') ?? 0n }),
  snapshot: (state) => state,
});
