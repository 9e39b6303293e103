import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Random } from '#dist/driver.js';
import { RunningVcpu } from '#dist/drivers/running-vcpu.js';
import { makeRegisters } from '#dist/drivers/vcpu-registers.js';
import { stateDigest } from '#dist/workers/state-digest.js';

const QUANTUM = 1234;
const makeVcpu = () => new RunningVcpu(makeRegisters(new Random('vcpu'), 0), QUANTUM);
const digest = (vcpu: RunningVcpu) => stateDigest(vcpu.registers);

describe('a running vCPU', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it('changes with time, and stands still once it is stopped', () => {
    const vcpu = makeVcpu();
    const before = digest(vcpu);
    vcpu.start();
    vi.advanceTimersByTime(4);
    expect(vcpu.executed).toBeGreaterThan(0);
    expect(vcpu.executed).toBeLessThan(QUANTUM);
    expect(digest(vcpu)).not.toBe(before);
    vcpu.stop();
    const stopped = digest(vcpu);
    vi.advanceTimersByTime(1000);
    expect(digest(vcpu)).toBe(stopped);
    expect(vi.getTimerCount()).toBe(0);
  });

  it.each([0, 2, 20, 100_000])('is the same when it is stopped after %i ms', (milliseconds) => {
    const reference = makeVcpu();
    reference.start();
    reference.stop();
    const vcpu = makeVcpu();
    vcpu.start();
    vi.advanceTimersByTime(milliseconds);
    vcpu.stop();
    expect(vcpu.executed).toBe(QUANTUM);
    expect(digest(vcpu)).toBe(digest(reference));
  });

  it('goes on to the next exit when it is started again, however often start is called', () => {
    const vcpu = makeVcpu();
    vcpu.start();
    vi.advanceTimersByTime(100_000); // waits at its exit
    vcpu.start();
    vcpu.stop();
    expect(vcpu.executed).toBe(QUANTUM);
    vcpu.start();
    vcpu.stop();
    expect(vcpu.executed).toBe(2 * QUANTUM);
  });
});
