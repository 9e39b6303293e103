/** The blackout, or an early freeze, of devices that need time to be quiet. */
import { Coordinator } from 'khorus';
import type { DeviceOptions } from '../drivers/device-driver.js';
import { benchHost, phases } from '../handover-runner.js';
import type { Measured } from '../harness/comparison.js';
import type { Load } from '../load.js';

export interface DevicesParameters {
  /** Milliseconds that each device needs to be quiet; as many devices. */
  readonly quiet: readonly number[];
  readonly load: Load;
  /**
   * `then`: all devices are quiet before the first serializes. `during`: each serializes as soon as it is quiet. `serial` and
   * `parallel`: how long freezing all of them early takes, one after another or at once.
   */
  readonly how: 'then' | 'during' | 'serial' | 'parallel';
}

export default function devices({ quiet, load, how }: DevicesParameters): Measured {
  const host = benchHost();
  const trigger = how === 'during' ? 'shutdown' : 'activate';
  const coordinator = new Coordinator(host, { mode: 'hash', workers: 2, profile: 'kho-v4', seed: 1, trigger });
  const names = quiet.map((_, index) => `device${index}`);
  for (const [index, name] of names.entries()) {
    const url = new URL(`../drivers/device-driver.js?name=${name}`, import.meta.url).href;
    const options: DeviceOptions = { load, quiet: quiet[index] ?? 0, where: how === 'during' ? 'shutdown' : 'freeze' };
    coordinator.register({ module: { url, origin: name }, count: 1, options, after: [], priority: 0 });
  }
  const measure = async (): Promise<number> => {
    if (how === 'then' || how === 'during') {
      using handover = await coordinator.handover();
      const { start, end } = phases(handover.timeline, how === 'then' ? 'freeze' : 'shutdown', 'finalize');
      return (end - start) * 1000;
    }
    await coordinator.prepare();
    const start = performance.now();
    if (how === 'parallel') await coordinator.freezeEarly(names);
    else for (const name of names) await coordinator.freezeEarly([name]);
    const took = performance.now() - start;
    await coordinator.cancel();
    return took * 1000;
  };
  return { measure };
}
