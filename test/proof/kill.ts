/**
 * The proof that kill -9 loses nothing that was promised, and leaves nothing behind for ever: `npm run proof:kill`.
 *
 *     CHUNKDAV_KILLS   default 200
 *     CHUNKDAV_SEED    of what is done and when; two processes and the disk have a say in the rest
 */
import { runKills } from './kill-run.ts'

const kills = Number(process.env.CHUNKDAV_KILLS ?? 200)
const seed = Number(process.env.CHUNKDAV_SEED ?? Date.now() % 1_000_000_000)
console.log(`${kills} kills, seed ${seed}`)
const figures = await runKills({ kills, seed, fullCheckEvery: 25, tell: (line) => console.log(line) })

const MiB = (bytes: number): string => `${(bytes / 1024 / 1024).toFixed(1)} MiB`
const { failures } = figures
const lines: Record<string, string> = {
  kills: `${figures.kills}: ${figures.inCollection} in a running collection (${figures.inSweep} of them while it gave space back), ${figures.inCommit} in a commit, ${figures.inStart} before the first answer of a start`,
  backups: `${figures.backups} committed, ${figures.frozen} freezes, ${figures.treeChanges} changes of the live tree`,
  removed: `${figures.pruned} by ${figures.prunes} prunes that were answered, ${figures.deleted} by deletions`,
  upkeep: `${figures.removed.pruned} checkpoints and ${figures.removed.trash} items of the trash removed, ${figures.removed.expired} open checkpoints expired`,
  collections: `${figures.collectionsAsked} asked for; ${figures.collectionsDone} seen done, ${figures.inCollection} interrupted by a kill`,
  bytes: `${MiB(figures.bytesSent)} sent by backups that were committed, ${MiB(figures.bytesIn)} received in ${figures.requests} requests`,
  'given back': `${MiB(figures.freedBytes)} by the collections that were seen to end, ${MiB(figures.movedBytes)} moved`,
  checks: `${figures.quickChecks} after starts, ${figures.fullChecks} of everything; ${figures.restored} checkpoints read back`,
  'at the end': `${figures.leftBytes} bytes of packs after ${figures.lastCollections} collections`,
  refusals: shown(figures.refusals),
  log: shown(figures.logKinds),
  doctor: [...figures.doctorWarnings].slice(0, 5).join('; ') || 'no warnings',
  failures: String(failures.length),
  seconds: figures.seconds.toFixed(0),
}
for (const [name, text] of Object.entries(lines)) console.log(`${name.padEnd(12)} ${text}`)
for (const failure of failures.slice(0, 20)) console.log(`  ${failure.slice(0, 3000)}`)
process.exitCode = failures.length > 0 ? 1 : 0

function shown(counts: ReadonlyMap<string, number>): string {
  return [...counts].map(([kind, count]) => `${count} × ${kind}`).join(', ') || 'nothing'
}
