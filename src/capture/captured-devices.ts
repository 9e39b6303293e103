import type { CapturedMachine } from './captured-machine.js';

/** One instance of a driver that comes with khorus. */
export interface CapturedDevice {
  readonly use: 'vfio-pci' | 'netdevsim';
  readonly options: Readonly<Record<string, string | number>>;
}

/** The devices of a machine as instances of drivers: PCI functions, then network interfaces, each in the order of its name. */
export function capturedDevices({ functions, interfaces }: CapturedMachine): CapturedDevice[] {
  return [
    ...functions.map(({ name, config, group }): CapturedDevice => {
      const options = {
        name,
        ...(group !== undefined && { group }),
        configSize: config.length,
        config: base64(config),
      };
      return { use: 'vfio-pci', options };
    }),
    ...interfaces.map(({ name, address, mtu, queues }): CapturedDevice => {
      const options = { ifname: name, ...(address !== undefined && { mac: address }), mtu, queues };
      return { use: 'netdevsim', options };
    }),
  ];
}

/** Without the zeros at the end, which most of a configuration space is. */
function base64(config: Uint8Array): string {
  let length = config.length;
  while (length > 0 && config[length - 1] === 0) length--;
  return Buffer.from(config.subarray(0, length)).toString('base64');
}
