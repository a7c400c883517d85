/**
 * What is backed up. Each corpus is made once below the work folder and used again by later runs; a file of facts
 * that is written last says that it is whole.
 */
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { putBack } from './change-files.ts'
import { makeDiskImages, showVersion } from './disk-image.ts'
import { makeRandomFile } from './random-file.ts'
import { makeSourceTree } from './source-tree.ts'
import { copySystemTree } from './system-tree.ts'

export type CorpusName = 'tree' | 'few' | 'random' | 'source' | 'image'

/** What a corpus is made of, in numbers. */
export interface Facts {
  readonly files: number
  readonly bytes: number
}

export interface Corpus extends Facts {
  readonly name: CorpusName
  /** The folder that is backed up. */
  readonly path: string
}

export interface Sizes {
  readonly treeFiles: number
  readonly treeBytes: number
  readonly fewFiles: number
  readonly fewBytes: number
  readonly randomBytes: number
  readonly sourceFiles: number
  readonly imageBytes: number
}

const MiB = 1024 * 1024

export const fullSizes: Sizes = {
  treeFiles: 20_000,
  treeBytes: 1126 * MiB,
  fewFiles: 400,
  fewBytes: 22 * MiB,
  randomBytes: 1024 * MiB,
  sourceFiles: 100_000,
  imageBytes: 2048 * MiB,
}

export const quickSizes: Sizes = {
  treeFiles: 1_000,
  treeBytes: 56 * MiB,
  fewFiles: 30,
  fewBytes: 4 * MiB,
  randomBytes: 32 * MiB,
  sourceFiles: 1_000,
  imageBytes: 32 * MiB,
}

type Make = (path: string, sizes: Sizes) => Promise<Facts>

const makers: Readonly<Record<CorpusName, Make>> = {
  tree: (path, { treeFiles, treeBytes }) => copySystemTree(path, { files: treeFiles, bytes: treeBytes }),
  few: (path, { fewFiles, fewBytes }) => copySystemTree(path, { files: fewFiles, bytes: fewBytes }),
  random: (path, { randomBytes }) => makeRandomFile(path, randomBytes),
  source: (path, { sourceFiles }) => makeSourceTree(path, sourceFiles),
  image: (path, { imageBytes }) => makeDiskImages(path, imageBytes),
}

/** Raised when a maker makes something else than before. */
const makersVersion = 1

/** Below `folder`; those that are there already, and whole, are taken as they are. */
export async function prepareCorpora(
  folder: string,
  sizes: Sizes,
  log: (line: string) => void,
): Promise<ReadonlyMap<CorpusName, Corpus>> {
  const corpora = new Map<CorpusName, Corpus>()
  for (const [key, make] of Object.entries(makers)) {
    const name = key as CorpusName
    const path = join(folder, name)
    const recipe = JSON.stringify({ version: makersVersion, sizes })
    let facts = await readFacts(`${path}.json`, recipe)
    if (facts === undefined) {
      log(`making the corpus ${name}`)
      await rm(`${path}.json`, { force: true })
      for (const each of [path, asideOf(path)]) await rm(each, { recursive: true, force: true })
      await mkdir(path, { recursive: true })
      facts = await make(path, sizes)
      await writeFile(`${path}.json.new`, JSON.stringify({ recipe, facts }))
      await rename(`${path}.json.new`, `${path}.json`)
    }
    // A run that was ended may have left changed files in place, or the second version of the image.
    putBack(path, asideOf(path))
    if (name === 'image') showVersion(path, 1)
    corpora.set(name, { name, path: name === 'image' ? join(path, 'now') : path, ...facts })
  }
  return corpora
}

/** Where the originals of changed files wait. */
export function asideOf(path: string): string {
  return `${path}.aside`
}

async function readFacts(path: string, recipe: string): Promise<Facts | undefined> {
  try {
    const known = JSON.parse(await readFile(path, 'utf8')) as { recipe: string; facts: Facts }
    return known.recipe === recipe ? known.facts : undefined
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return undefined
  }
}
