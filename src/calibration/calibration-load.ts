/** What an instance of the calibration driver does. */
export interface CalibrationLoad {
  /** Nodes with ten properties each. */
  readonly nodes: number;
  /** Steps of work, about a nanosecond each. */
  readonly steps: number;
}

/** Bytes of a node of ten properties: tags, name, headers and values, with some to spare for longer numbers. */
const NODE_BYTES = 240;
/** The instance's node and the names, once each. */
const FRAME_BYTES = 512;

/** The bound that a shard declares. */
export function shardBytes({ nodes }: CalibrationLoad): number {
  return FRAME_BYTES + nodes * NODE_BYTES;
}
