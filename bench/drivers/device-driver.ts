/**
 * Devices of the lifecycle suite: hosted drivers that need time to be quiet. One module for all: the name is in the URL's
 * query (`device-driver.js?name=device0`), so that each is a driver of its own.
 */
import { defineDriver } from 'khorus/driver';
import { type Load, writeLoad } from '../load.js';
import { instanceBytes } from '../load-size.js';

export interface DeviceOptions {
  readonly load: Load;
  /** Milliseconds that the device needs to be quiet: its interrupts drain, its thread only waits. */
  readonly quiet: number;
  /** Which callback waits for it. */
  readonly where: 'shutdown' | 'freeze';
}

const name = new URL(import.meta.url).searchParams.get('name') ?? 'device';

function drain(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

export default defineDriver<DeviceOptions, null>({
  name,
  compatible: `${name}-v1`,
  hosted: true,
  shards: ({ load }) => [{ maxBytes: instanceBytes(load) }],
  create: () => null,
  shutdown: ({ options: { quiet, where } }) => (where === 'shutdown' ? drain(quiet) : undefined),
  freeze: ({ options: { quiet, where } }) => (where === 'freeze' ? drain(quiet) : undefined),
  serialize: (ctx) => writeLoad(ctx, ctx.options.load, ctx.index),
  restore: () => null,
  snapshot: () => null,
});
