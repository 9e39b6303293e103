import type { Suite } from '../harness/suite.js';
import { PROPERTIES_PER_NODE } from '../load.js';
import type { DevicesParameters } from '../variants/devices.js';

const DEVICES = new URL('../variants/devices.js', import.meta.url);
/** Properties that each device serializes. */
const PROPERTIES = 10_000;
const LOAD = { nodes: PROPERTIES / PROPERTIES_PER_NODE, properties: PROPERTIES_PER_NODE, names: 'strings' } as const;
/** Milliseconds that the devices need to be quiet. */
const QUIET: readonly { readonly title: string; readonly quiet: readonly number[] }[] = [
  { title: '8 devices that are quiet after 1 to 8 ms', quiet: [1, 2, 3, 4, 5, 6, 7, 8] },
  { title: '8 devices that are quiet after 5 ms', quiet: Array.from({ length: 8 }, () => 5) },
  {
    title: '7 devices that are quiet at once, and one after 20 ms',
    quiet: [...Array.from({ length: 7 }, () => 0), 20],
  },
];

/** What the order of things is worth where devices need time to be quiet. */
export const lifecycleSuite: Suite = {
  async *comparisons({ rounds }) {
    const variant = (name: string, parameters: DevicesParameters) => ({ name, module: DEVICES, parameters });
    for (const { title, quiet } of QUIET) {
      const load = { ...LOAD, workSteps: 0 };
      yield {
        title: `${title}, ${PROPERTIES} properties each: from the first that stops to the finished blobs`,
        unit: 'us',
        rounds: rounds(25),
        variants: [
          variant('shutdown, then serialize', { quiet, load, how: 'then' }),
          variant('serialize during shutdown', { quiet, load, how: 'during' }),
        ],
      };
      yield {
        title: `${title}: freezing all of them early`,
        unit: 'us',
        rounds: rounds(25),
        variants: [
          variant('one after another', { quiet, load, how: 'serial' }),
          variant('in parallel', { quiet, load, how: 'parallel' }),
        ],
      };
    }
  },
};
