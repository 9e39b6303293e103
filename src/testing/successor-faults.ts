import { FaultBoard, type FaultBoardHandle } from './fault-board.js';
import { Seat } from './seat.js';

/** The faults of a successor, whose drivers get no options that could tell them. */
export interface SuccessorFaults {
  readonly board: FaultBoardHandle;
  /** Names of the instances of each driver, by their indexes in it. */
  readonly instances: ReadonlyMap<string, readonly string[]>;
}

let faults: { readonly board: FaultBoard; readonly instances: SuccessorFaults['instances'] } | undefined;

/** What strikes in the successor that this thread is; undefined for none. */
export function setSuccessorFaults(given: SuccessorFaults | undefined): void {
  faults = given && { board: FaultBoard.attach(given.board), instances: given.instances };
}

/** The seat of an instance in the successor; undefined where no faults are. */
export function successorSeat(driver: string, instance: string): Seat | undefined {
  return faults && new Seat(faults.board, driver, instance, faults.instances.get(driver)?.indexOf(instance));
}
