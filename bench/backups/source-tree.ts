import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Facts } from './corpora.ts'
import { SourceText } from './source-text.ts'

const endings = ['.c', '.h', '.ts', '.py', '.md', '.json', '.txt']

/** A tree of small files as a source tree has them: a dozen in a folder, folders up to seven deep. */
export async function makeSourceTree(root: string, files: number): Promise<Facts> {
  const source = new SourceText(20_000)
  const folders = [root]
  let bytes = 0
  for (let made = 0; made < files; made++) {
    if (made % 12 === 0 && made > 0) folders.push(newFolder(source, root, folders, made))
    const folder = folders.at(-1) ?? root
    const name = `${source.word()}-${made.toString(36)}${endings[source.pick(endings.length)]}`
    const text = source.text(source.size())
    writeFileSync(join(folder, name), text)
    bytes += text.length
  }
  return { files, bytes }
}

function newFolder(source: SourceText, root: string, folders: readonly string[], made: number): string {
  const parent = folders[source.pick(folders.length)] ?? root
  const isDeep = parent.slice(root.length).split('/').length > 7
  const folder = join(isDeep ? root : parent, `${source.word()}-${made.toString(36)}`)
  mkdirSync(folder)
  return folder
}
