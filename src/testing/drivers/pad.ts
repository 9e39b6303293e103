import type { Driver } from '../../driver.js';
import { type ScratchPadOptions, type ScratchPadPrepared, type ScratchPadState, scratchPad } from './scratch-pad.js';

/** Stateless. */
const pad: Driver<ScratchPadOptions, ScratchPadState, ScratchPadPrepared> = scratchPad('pad', false);

export default pad;
