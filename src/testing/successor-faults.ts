import { FaultBoard, type FaultBoardHandle } from './fault-board.js';

let board: FaultBoard | undefined;

/** What strikes in the successor that this thread is: its drivers get no options that could tell. Undefined for none. */
export function setSuccessorFaults(handle: FaultBoardHandle | undefined): void {
  board = handle && FaultBoard.attach(handle);
}

export function successorBoard(): FaultBoard | undefined {
  return board;
}
