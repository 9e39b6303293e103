/** Frames of the checker itself, between an access and the program that makes it. */
const OWN = /(call-stack|execution|globals|simulated-thread)\.ts/;

/** The functions of the program that are being called, innermost first. */
export function callStack(): string {
  const names = (new Error().stack ?? '')
    .split('\n')
    .slice(1)
    .filter((frame) => !OWN.test(frame))
    .map((frame) => /at (?:async )?(?:new )?(?:\S+\.)?([#\w$<>]+) \(/.exec(frame)?.[1])
    .filter((name) => name !== undefined);
  return names.slice(0, 3).join(' < ');
}
