/** A thread that runs the load's callbacks for a peer: objects by structured clone, or a buffer that is transferred. */
import { serveTeam } from '../harness/team-member.js';
import { INSTANCES, type Load, writeLoad } from '../load.js';
import { ObjectContext, PropertyObjectContext } from '../peers/object-tree.js';
import { SequentialContext } from '../peers/sequential-context.js';
import { StreamWriter } from '../peers/wire-stream.js';

export type SerializeJob = {
  readonly load: Load;
  readonly member: number;
  readonly threads: number;
} & ({ readonly by: 'objects' | 'property-objects' } | { readonly by: 'transfer'; readonly buffer: ArrayBuffer });

serveTeam<SerializeJob>((job) => {
  const { load } = job;
  // Neighbours stay together, as the coordinator's tasks keep them.
  const first = Math.floor((job.member * INSTANCES) / job.threads);
  const end = Math.floor(((job.member + 1) * INSTANCES) / job.threads);
  if (job.by !== 'transfer') {
    const Context = job.by === 'objects' ? ObjectContext : PropertyObjectContext;
    return {
      run(send) {
        for (let instance = first; instance < end; instance++) {
          const context = new Context(`load${instance}`, send);
          writeLoad(context, load, instance);
          context.end();
        }
      },
    };
  }
  return {
    run(send) {
      const writer = new StreamWriter(job.buffer);
      for (let instance = first; instance < end; instance++) {
        writer.beginInstance(`load${instance}`);
        const context = new SequentialContext(writer);
        writeLoad(context, load, instance);
        context.end();
      }
      send(writer.finish(), [job.buffer]);
    },
  };
});
