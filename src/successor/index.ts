export { restoreImage, type SuccessorInput } from './restore.js';
export { startSuccessor } from './start-successor.js';
export { verifyImage } from './verify-image.js';
export { contradictions, verifyPreserved } from './verify-preserved.js';
