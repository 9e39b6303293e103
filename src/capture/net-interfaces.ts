import type { CapturedFiles } from './captured-files.js';

export const NET_INTERFACES = 'sys/class/net';
/** Of netdevsim; no real device comes near. */
const QUEUES_MAX = 1024;
/** As the kernel prints them: of Ethernet 6 bytes, of InfiniBand 20. */
const ADDRESS = /^[0-9a-f]{2}(:[0-9a-f]{2}){0,31}$/;
const NAME = /^[^\s/:]{1,15}$/;

/** A network interface of a device. */
export interface NetInterface {
  readonly name: string;
  /** `02:5a:31:00:9c:77`; absent for a device without one. */
  readonly address?: string;
  readonly mtu: number;
  /** The larger of its receive and transmit queues. */
  readonly queues: number;
}

export interface NetInterfaces {
  readonly interfaces: readonly NetInterface[];
  readonly notices: readonly string[];
}

/** Reads the interfaces that a device is behind: no bridges, bonds, tunnels or loopback. KHO_EINVAL, with the file, for what makes no sense. */
export function readNetInterfaces(files: CapturedFiles): NetInterfaces {
  const notices: string[] = [];
  const interfaces: NetInterface[] = [];
  for (const name of files.list(NET_INTERFACES)) {
    const path = `${NET_INTERFACES}/${name}`;
    // `bonding_masters` is a file among them.
    if (!files.isDirectory(path) || !files.has(`${path}/device`)) continue;
    if (!NAME.test(name)) throw files.invalid(path, 'is no name of a network interface');
    const mtu = files.requiredLine(`${path}/mtu`);
    if (!/^\d{1,9}$/.test(mtu)) throw files.invalid(`${path}/mtu`, `is '${mtu.slice(0, 60)}'; expected bytes`);
    const address = files.has(`${path}/address`) ? files.requiredLine(`${path}/address`) : '';
    if (address !== '' && !ADDRESS.test(address)) {
      throw files.invalid(`${path}/address`, `is '${address.slice(0, 60)}'; expected bytes such as 02:5a:31:00:9c:77`);
    }
    const queues = files.list(`${path}/queues`);
    const [rx, tx] = ['rx-', 'tx-'].map((kind) => queues.filter((queue) => queue.startsWith(kind)).length);
    const count = Math.min(Math.max(rx, tx, 1), QUEUES_MAX);
    if (rx !== tx || Math.max(rx, tx) > QUEUES_MAX) {
      notices.push(`${name} has ${rx} receive and ${tx} transmit queues; the model has ${count} of each`);
    }
    interfaces.push({ name, ...(address !== '' && { address }), mtu: Number(mtu), queues: count });
  }
  return { interfaces, notices };
}
