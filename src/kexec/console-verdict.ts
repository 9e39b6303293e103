/** What the handover holds that a kernel's console must tell of. */
export interface ConsoleExpectations {
  /** The release and count that `kexec-metadata` names; absent if the handover has none. */
  readonly metadata?: { readonly previousRelease: string; readonly kexecCount: number };
  /** Names of the `reserve_mem` areas that the next kernel asks for by its command line. */
  readonly reservations: readonly string[];
  /** Whether there is state of the kernel's own test, lib/test_kho.c. */
  readonly khoTest: boolean;
  /** SHA-256 of what user space can find: `reserve_mem NAME`, `memfd SESSION/TOKEN`. */
  readonly digests: ReadonlyMap<string, string>;
}

/** What came of a boot, as its console tells it. */
export interface ConsoleReport {
  /** `Linux version …`, without what follows the release; undefined if the kernel never said it. */
  readonly kernel: string | undefined;
  readonly found: boolean;
  readonly revived: readonly string[];
  /** The line `exec from: …` said. */
  readonly execFrom: string | undefined;
  readonly khoTest: 'succeeded' | 'failed' | undefined;
  /** How many digests of the guest's were compared and equal. */
  readonly digestsEqual: number;
  /** True if the guest said that it reported everything. */
  readonly guestDone: boolean;
  /** Why the boot counts as failed; empty if it does not. */
  readonly failures: readonly string[];
  /** What could not be checked. */
  readonly notes: readonly string[];
}

const FOUND = 'KHO: found kexec handover data.';
/** A kernel's line after its time stamp, if it has one: `[    0.000000] KHO: …`, or with a caller `[    0.1][    T0] …`. */
const STAMP = /^(?:\[[ \d.]+\](?:\[[ TC\d]+\])? ?)?(.*)$/;
const TROUBLE: readonly RegExp[] = [
  /\bWARNING: /,
  /\bBUG: /,
  /\bOops\b/,
  /\bCall Trace:/,
  /\brefcount_t: /,
  /\bUnable to restore\b/,
  /\bKHO restore failed\b/,
  /\bKernel panic\b/,
  /\bINFO: .*(?:stall|blocked for more than)/,
];
/** Lines of KHO and LUO that a good boot has. Whatever else they say is a warning. */
const USUAL: readonly RegExp[] = [
  /^KHO: found kexec handover data\.$/,
  /^KHO: exec from: .+ \(count \d+\)$/,
  /^KHO: scratch areas: .+$/, // what kho_scratch= on the command line came to
  /^test_kho: KHO restore succeeded$/,
  /^luo: Retrieved live update data, liveupdate number: \d+$/,
];
/** All of LUO is one module, `luo`. */
const OF_KHO = /^(?:KHO|test_kho|luo|memfd_luo): /;
const GUEST = /^khorus-guest: (.*)$/;
/** Guest reports that are compared: what is named, and its digest at the end of the line. */
const GUEST_DIGEST = /^(reserve_mem|memfd) (\S+(?: \d+)?) (\d+) ([0-9a-f]{64})$/;

/**
 * Reads a console line by line and says whether the handover arrived: the lines that Linux 7.2 prints for it are there,
 * what a guest's program found is what the run recorded, and nothing else went wrong.
 *
 * A guest's program reports in lines of its own, which this compares:
 *
 * ```text
 *   khorus-guest: reserve_mem NAME SIZE SHA256
 *   khorus-guest: memfd SESSION TOKEN SIZE SHA256
 *   khorus-guest: error TEXT
 *   khorus-guest: done
 * ```
 */
export class ConsoleVerdict {
  readonly #expected: ConsoleExpectations;
  readonly #revived: string[] = [];
  readonly #trouble: string[] = [];
  readonly #digests = new Map<string, string>();
  #kernel: string | undefined;
  #lines = 0;
  #found = false;
  #execFrom: string | undefined;
  #khoTest: 'succeeded' | 'failed' | undefined;
  #guestDone = false;

  constructor(expected: ConsoleExpectations) {
    this.#expected = expected;
  }

  /** Takes one line, without its end. */
  line(text: string): void {
    if (text !== '') this.#lines++;
    const message = STAMP.exec(text)?.[1] ?? text;
    const guest = GUEST.exec(message)?.[1];
    if (guest !== undefined) {
      this.#guestLine(guest);
      return;
    }
    const version = /^Linux version (\S+)/.exec(message)?.[1];
    if (version !== undefined) this.#kernel = version;
    if (message === FOUND) this.#found = true;
    const revived = /^Revived memory reservation '(.*)' from KHO$/.exec(message)?.[1];
    if (revived !== undefined) this.#revived.push(revived);
    this.#execFrom = /^KHO: exec from: (.+)$/.exec(message)?.[1] ?? this.#execFrom;
    const test = /\bKHO restore (succeeded|failed)$/.exec(message)?.[1];
    if (test !== undefined) this.#khoTest = test === 'succeeded' ? 'succeeded' : 'failed';
    const warning = OF_KHO.test(message) && !USUAL.some((usual) => usual.test(message));
    if (warning || TROUBLE.some((pattern) => pattern.test(message))) this.#trouble.push(message);
  }

  /** The verdict over all lines so far. */
  report(): ConsoleReport {
    const notes: string[] = [];
    const failures = [...this.#missing(), ...this.#trouble.map((line) => `the kernel says: ${line}`)];
    let digestsEqual = 0;
    if (this.#found && !this.#isOff) {
      const { digests } = this.#expected;
      if (this.#digests.size === 0 && !this.#guestDone) {
        if (digests.size > 0) notes.push('the guest reported no digests: contents were not compared');
      } else {
        for (const [name, digest] of digests) {
          const there = this.#digests.get(name);
          if (there === digest) digestsEqual++;
          else if (there === undefined) failures.push(`the guest did not find ${name}`);
          else failures.push(`${name} has the digest ${there} in the guest, expected ${digest}`);
        }
        for (const name of this.#digests.keys()) {
          if (!digests.has(name)) notes.push(`the guest reports ${name}, of which the run recorded no digest`);
        }
      }
    }
    return {
      kernel: this.#kernel,
      found: this.#found,
      revived: this.#revived,
      execFrom: this.#execFrom,
      khoTest: this.#khoTest,
      digestsEqual,
      guestDone: this.#guestDone,
      failures,
      notes,
    };
  }

  /** What the kernel should have said and did not. Without a sign that it found the handover, that alone is told. */
  #missing(): string[] {
    const { metadata, reservations, khoTest } = this.#expected;
    if (this.#lines === 0) {
      return [
        'the console stayed silent: the kernel has no serial console (CONFIG_SERIAL_8250_CONSOLE; console=ttyS0 on its ' +
          'command line), or it died before it had one (earlyprintk=ttyS0 shows more)',
      ];
    }
    if (this.#kernel === undefined) return ['no kernel said its version on the console: it did not come up'];
    if (!this.#found) {
      return [
        `Linux ${this.#kernel} booted, but never said '${FOUND}': it is built without CONFIG_KEXEC_HANDOVER, or it ` +
          'refused the handover',
      ];
    }
    if (this.#isOff) {
      return [
        `Linux ${this.#kernel} found the handover, but never said 'exec from: ${metadata?.previousRelease}': KHO is off ` +
          'there; its command line must say kho=on',
      ];
    }
    const missing = reservations
      .filter((name) => !this.#revived.includes(name))
      .map((name) => `the reservation '${name}' was not revived`);
    if (metadata !== undefined) {
      const wanted = `${metadata.previousRelease} (count ${metadata.kexecCount})`;
      if (this.#execFrom !== wanted) {
        missing.push(`the kernel says 'exec from: ${this.#execFrom}', expected ${wanted}`);
      }
    }
    if (khoTest && this.#khoTest === undefined) {
      missing.push('kho_test was handed over, but the kernel has no CONFIG_TEST_KEXEC_HANDOVER to restore it');
    }
    return missing;
  }

  /** A kernel with KHO off finds a handover and keeps clear of its memory, but nothing more: seen with 7.2.13. */
  get #isOff(): boolean {
    return this.#found && this.#expected.metadata !== undefined && this.#execFrom === undefined;
  }

  #guestLine(text: string): void {
    if (text === 'done') this.#guestDone = true;
    else if (text.startsWith('error')) this.#trouble.push(`khorus-guest: ${text}`);
    const [, kind, what = '', , digest] = GUEST_DIGEST.exec(text) ?? [];
    if (kind !== undefined && digest !== undefined) this.#digests.set(`${kind} ${what.replace(' ', '/')}`, digest);
  }
}
