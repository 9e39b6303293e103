import type { Driver } from '../../driver.js';
import { type ScratchPadOptions, type ScratchPadPrepared, type ScratchPadState, scratchPad } from './scratch-pad.js';

/** Hosted: its state lives on a thread of its own. */
const pad: Driver<ScratchPadOptions, ScratchPadState, ScratchPadPrepared> = scratchPad('live-pad', true);

export default pad;
