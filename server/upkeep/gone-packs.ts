/** Whether a vault has lost packs while nobody looked: asked before its store is opened, which makes a new index then. */
import { join } from 'node:path'
import { isProblem } from '../../protocol/problem.ts'
import type { FileLayer } from '../file-layer.ts'
import { ContentIndex } from '../store/content-index.ts'
import { packName } from '../store/pack-file.ts'

/**
 * The name of the pack up to which the index knows everything, when it is gone, or shorter than the index knows it;
 * undefined when it stands, when there is no index, and when the index does not open: whoever opens the store then tells.
 */
export async function gonePack(vaultPath: string, files: FileLayer): Promise<string | undefined> {
  const folder = join(vaultPath, 'index')
  if ((await files.stat(join(folder, 'CURRENT'))) === undefined) return undefined
  const mark = await markOf(folder)
  if (mark === undefined || mark.offset === 0) return undefined
  const name = packName(mark.pack)
  const found = await files.stat(join(vaultPath, 'packs', name))
  return found === undefined || found.bytes < mark.offset ? name : undefined
}

async function markOf(folder: string): Promise<ContentIndex['mark']> {
  try {
    const index = await ContentIndex.open(folder)
    const { mark } = index
    await index.close()
    return mark
  } catch (error) {
    if (isProblem(error)) return undefined
    throw error
  }
}
