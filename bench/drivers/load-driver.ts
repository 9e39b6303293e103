/** The driver of the end-to-end and modes suites: its instances hand over what bench/load.ts says, and nothing else. */
import { defineDriver } from 'khorus/driver';
import { type Load, writeLoad } from '../load.js';
import { instanceBytes } from '../load-size.js';

export default defineDriver<Load, null>({
  name: 'load',
  compatible: 'load-v1',
  shards: (load) => [{ maxBytes: instanceBytes(load) }],
  create: () => null,
  serialize: (ctx) => writeLoad(ctx, ctx.options, ctx.index),
  restore: () => null,
  snapshot: () => null,
});
