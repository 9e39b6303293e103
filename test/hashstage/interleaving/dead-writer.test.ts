import { describe, expect, test, vi } from 'vitest';
import { Finalizer, ShardWriter, Stage } from '#dist/hashstage/index.js';
import { Execution, type Scheduler } from './execution.js';
import {
  loRx,
  portAgain,
  portInTwoArenas,
  portThenRx,
  queueMtu,
  rendered,
  replacePort,
  type Script,
  tree,
} from './shard-programs.js';
import { loadShipped, type Shipped } from './shipped.js';
import type { SimulatedThread } from './simulated-thread.js';
import { type Body, ROOT, SHARDS, type StageProgram, stageProgram } from './stage-program.js';

// How busy the machine is must not decide what is proven.
vi.setConfig({ testTimeout: 300_000 });

const MAX_SHARD_BYTES = 1024;
const OPTIONS = { ...SHARDS, maxNames: 16 };
const load = await loadShipped();

const write =
  (shard: number, ...scripts: readonly Script[]): Body =>
  (stage, module) => {
    for (const script of scripts) script(stage, new module.ShardWriter(stage, shard, MAX_SHARD_BYTES));
  };

/** What everybody else has in the end, and whether the dead one's shard can still be read. */
const readAll: Body = (stage, module) => {
  const others = rendered(new module.Finalizer(stage), [1, 2]);
  // The names that there are, and one and a node more: by a thread that meets what the dead one left.
  const names = stage.names().filter((name) => name !== undefined);
  const after = new module.ShardWriter(stage, 2, MAX_SHARD_BYTES);
  after.u32(after.open(after.open(ROOT, 'port'), 'one-more'), stage.nameId('one-more'), 1);
  const grown = rendered(new module.Finalizer(stage), [1, 2]);
  const texts = names.map((name) => stage.nameText(stage.nameId(name)));
  return { others, grown, lost: names.filter((name, index) => texts[index] !== name), dead: deadShard(stage, module) };
};

/** Of the dead one's shard: an FDT, or an error of ours. Any other error is the checker's to find. */
function deadShard(stage: Stage, module: Shipped): string {
  try {
    return rendered(new module.Finalizer(stage), [0]);
  } catch (error) {
    if (error instanceof Error && 'code' in error) return String(error.code);
    throw error;
  }
}

function programOf(victim: readonly Script[], other: Script): StageProgram {
  return {
    name: 'a writer dies',
    options: OPTIONS,
    threads: {
      victim: write(0, ...victim),
      other: write(1, other),
      third: write(2, loRx),
      end: [['victim', 'other', 'third'], readAll],
    },
    check: () => {},
  };
}

/** The same without the victim, on the real machine. */
function expected(other: Script): { others: string; grown: string } {
  const stage = Stage.create(OPTIONS);
  other(stage, new ShardWriter(stage, 1, MAX_SHARD_BYTES));
  loRx(stage, new ShardWriter(stage, 2, MAX_SHARD_BYTES));
  const others = rendered(new Finalizer(stage), [1, 2]);
  const after = new ShardWriter(stage, 2, MAX_SHARD_BYTES);
  after.u32(after.open(after.open(ROOT, 'port'), 'one-more'), stage.nameId('one-more'), 1);
  return { others, grown: rendered(new Finalizer(stage), [1, 2]) };
}

type Thread = SimulatedThread<Shipped>;
/** Of the threads that are ready, the one that makes the next access. */
type Choose = (running: Thread | undefined, ready: readonly Thread[]) => Thread | undefined;
const inOrder: Choose = (running, [first]) => (running?.state === 'ready' ? running : first);

function executionOf(program: StageProgram) {
  const execution = new Execution(stageProgram(load, program), 'every');
  return { execution, begin: execution.snapshot() };
}

/** The victim dies before its access number `at`, and the others go on. Says whether it lived to its end. */
function runWithDeath({ execution, begin }: ReturnType<typeof executionOf>, at: number, choose: Choose) {
  execution.restore(begin);
  const ready = () => execution.threads.filter(({ state }) => state === 'ready');
  const [victim] = execution.threads as [Thread];
  const isDue = () => victim.state === 'ready' && victim.length >= at;
  const next: Scheduler<Shipped>['next'] = (running) => {
    const chosen = choose(running, ready());
    return chosen === victim && isDue() ? undefined : chosen;
  };
  execution.run({ next }, next(undefined));
  const survived = !isDue();
  if (!survived && execution.finding === undefined) {
    execution.kill(victim);
    const rest: Scheduler<Shipped>['next'] = (running) => choose(running, ready());
    execution.run({ next: rest }, rest(undefined));
  }
  expect(execution.finding && `${execution.finding.kind}: ${execution.finding.message}`).toBeUndefined();
  expect(execution.allDone).toBe(true);
  return { survived, end: execution.results().end as ReturnType<typeof readAll> & Record<string, unknown> };
}

const victims: Record<string, readonly Script[]> = {
  'writes front to back': [queueMtu],
  'goes on in a new arena': [portInTwoArenas],
  'takes nodes out and replaces one': [portThenRx],
  'uses room again': [portAgain, replacePort],
};

describe('a writer that dies at any access leaves the stage readable, and of the others every byte', () => {
  for (const [what, victim] of Object.entries(victims)) {
    for (const [whose, other] of Object.entries({
      'the same nodes': queueMtu,
      'and takes out the same nodes': portAgain,
    })) {
      test(`while it ${what}; another one writes ${whose}`, async ({ annotate }) => {
        const program = executionOf(programOf(victim, other));
        const right = expected(other);
        let at = 0;
        for (let survived = false; !survived; at++) {
          const run = runWithDeath(program, at, inOrder);
          survived = run.survived;
          expect(run.end, `dead before access ${at}`).toMatchObject({ ...right, lost: [] });
        }
        expect(at).toBeGreaterThan(50);
        await annotate(`${at} points of death`);
      });
    }
  }
});

test('so it is if the others are in the middle of something, in random schedules', () => {
  let state = 1;
  const random = (below: number) => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return (state >>> 8) % below;
  };
  const right = expected(queueMtu);
  const programs = [...Object.values(victims), [tree]].map((victim) => executionOf(programOf(victim, queueMtu)));
  let deaths = 0;
  for (let round = 0; round < 300; round++) {
    const choose: Choose = (running, ready) =>
      running?.state === 'ready' && random(4) > 0 ? running : ready[random(ready.length)];
    const program = programs[round % programs.length] as ReturnType<typeof executionOf>;
    const { survived, end } = runWithDeath(program, random(150), choose);
    if (!survived) deaths++;
    expect(end, `round ${round}`).toMatchObject({ ...right, lost: [] });
  }
  expect(deaths).toBeGreaterThan(100);
});
