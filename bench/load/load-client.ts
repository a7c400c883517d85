/**
 * Some of the clients of a load, in a process of their own: each backs up its own directory again and again, and
 * changes it in between. Told by one message what to do; tells of each backup, and at the end what each client has.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { backUp, restoreTo } from '../../test/support/backup.ts'
import { listing, seededBytes } from '../../test/support/tree.ts'

export interface ClientTask {
  readonly name: string
  /** With the user and the token in it. */
  readonly vaultUrl: string
  /** Its last checkpoint is restored and compared. */
  readonly isCompared: boolean
}

export interface ToClients {
  readonly folder: string
  readonly seed: string
  readonly clients: readonly ClientTask[]
  /** No backup is begun after this many milliseconds. */
  readonly ms: number
}

/** One backup that is over, or one that failed. */
export type FromClients =
  | { readonly kind: 'backup'; readonly client: string; readonly ms: number; readonly bytesSent: number }
  | { readonly kind: 'error'; readonly client: string; readonly text: string }
  | { readonly kind: 'compared'; readonly client: string }
  | { readonly kind: 'done' }

const smallFiles = 20
const largeFiles = 6

function tell(message: FromClients): void {
  process.send?.(message)
}

/** About 2 MB at first; each round changes about a quarter. */
function change(source: string, seed: string, round: number): void {
  const write = (name: string, bytes: number): void =>
    writeFileSync(join(source, name), seededBytes(`${seed} ${name} ${round}`, bytes))
  const sizeOf = (i: number, from: number, to: number): number =>
    from + ((i * 7919 + round * 104_729) % (to - from))
  for (let i = 0; i < smallFiles; i++)
    if (round === 0 || (i + round) % 5 === 0) write(`small-${i}`, sizeOf(i, 1000, 20_000))
  for (let i = 0; i < largeFiles; i++)
    if (round === 0 || i === round % largeFiles) write(`large-${i}`, sizeOf(i, 300_000, 900_000))
  write(`new-${round}`, 5000)
  rmSync(join(source, `new-${round - 3}`), { force: true })
}

async function run(
  { name, vaultUrl, isCompared }: ClientTask,
  { folder, seed, ms }: ToClients,
): Promise<void> {
  const source = join(folder, name, 'source')
  const state = join(folder, name, 'state')
  mkdirSync(source, { recursive: true })
  const until = performance.now() + ms
  let number = 0
  for (let round = 0; round === 0 || performance.now() < until; round++) {
    change(source, `${seed} ${name}`, round)
    const began = performance.now()
    try {
      const { checkpoint, problemCount, bytesSent } = await backUp(source, { vaultUrl, state, source: name })
      if (problemCount > 0) throw new Error(`${problemCount} files could not be read`)
      number = checkpoint.number
      tell({ kind: 'backup', client: name, ms: performance.now() - began, bytesSent })
    } catch (error) {
      tell({ kind: 'error', client: name, text: describe(error) })
    }
  }
  if (!isCompared) return
  try {
    const to = join(folder, name, 'restored')
    await restoreTo(to, { vaultUrl, source: name, number })
    const [there, back] = [listing(source), listing(to)]
    if (there.join('\n') !== back.join('\n')) throw new Error('what was restored is not what was there')
    tell({ kind: 'compared', client: name })
  } catch (error) {
    tell({ kind: 'error', client: name, text: describe(error) })
  }
}

function describe(error: unknown): string {
  const { code = '', message } = error as { code?: string; message: string }
  return `${code} ${message}`.trim()
}

process.once('message', async (task: ToClients) => {
  await Promise.all(task.clients.map((client) => run(client, task)))
  process.send?.({ kind: 'done' } satisfies FromClients, () => process.disconnect())
})
