import { join } from 'node:path'
import type { Problem } from '../../protocol/problem.ts'
import { type FileLayer, nodeFiles } from '../file-layer.ts'
import { Checkpoints } from './checkpoints.ts'
import type { ChunkReader } from './chunk-reader.ts'
import { Closure } from './closure.ts'
import { makeFolderDurably } from './durable-file.ts'

/** What a vault knows about its chunks: which checkpoints keep them, and what objects reach. */
export interface Catalog {
  readonly reader: ChunkReader
  readonly closure: Closure
  readonly checkpoints: Checkpoints
}

/**
 * Opens the catalogue that is kept in a vault's folder. Nothing to close. `onDamage` is told of checkpoints
 * that cannot be read; the others go on without them. `expectSpace` as in `Checkpoints.open`.
 */
export async function openCatalog(
  vaultPath: string,
  reader: ChunkReader,
  onDamage: (problem: Problem) => void = () => {},
  files: FileLayer = nodeFiles,
  expectSpace?: (bytes: number) => void,
): Promise<Catalog> {
  const path = join(vaultPath, 'checkpoints')
  await makeFolderDurably(path, files)
  // The sources in it may have been made by a process that died before it synced them.
  await files.syncFolder(path)
  const closure = new Closure(reader)
  const checkpoints = await Checkpoints.open(path, reader, closure, onDamage, files, expectSpace)
  return { reader, closure, checkpoints }
}
