import { access } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import { lockDataDir } from '../data-lock.ts'
import { packName } from '../store/pack-file.ts'
import type { DamagedStretch } from '../store/recovery.ts'
import { reindexAll } from '../upkeep/reindex.ts'
import { dataCommand, type Surroundings } from './data-command.ts'

const examples = `
Example:
  chunkdav reindex --data /srv/backups

Stop the receiver first. Every chunk is read and hashed, so it takes as long as reading all packs once. What is
damaged is named and left out: run chunkdav check when the receiver runs, which tells what lacks it; the next backup
sends it again.

Exit codes: 0 every vault has its index, 1 something damaged was left out, or it failed, 2 wrong usage.`

/** `chunkdav reindex`. */
export function reindexCommand(surroundings: Surroundings): Command {
  return dataCommand(
    'reindex',
    'Rebuild the content index of every vault from its packs, while no receiver runs',
    surroundings,
  )
    .addHelpText('after', examples)
    .action(reindex)
}

async function reindex({ data }: { data: string }): Promise<void> {
  const dataDir = resolve(data)
  await access(join(dataDir, 'vaults'))
  const lock = await lockDataDir(dataDir)
  try {
    for await (const { vault, report } of reindexAll(dataDir)) {
      const { packs, blocks, chunks, damaged } = report
      const counts = `${count(chunks, 'chunk')} in ${count(blocks, 'block')} of ${count(packs, 'pack')}`
      process.stdout.write(`${vault}: ${counts}\n`)
      for (const stretch of damaged) process.stdout.write(`${vault}: left out: ${told(stretch)}\n`)
      if (damaged.length === 0) continue
      process.exitCode = 1
      process.stdout.write(`${vault}: ${afterwards(vault)}\n`)
    }
  } finally {
    await lock.release()
  }
}

function told({ pack, offset, bytes, damage }: DamagedStretch): string {
  return `${packName(pack)}, ${count(bytes, 'byte')} from byte ${offset} on: ${damage}`
}

function afterwards(vault: string): string {
  return `backups may lack content: start the receiver and run chunkdav check http://HOST:PORT/${vault}`
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`
}
