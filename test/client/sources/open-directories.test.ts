import {
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { platform } from 'node:process'
import { describe, expect, test } from 'vitest'
import { OpenDirectories } from '../../../client/sources/open-directories.ts'
import { temporaryFolder } from '../../support/tree.ts'

const openDescriptors = (): number => readdirSync('/proc/self/fd').length

describe.runIf(platform === 'linux')('step by step', () => {
  test('leads to every directory, deeper than it may hold, in any order; gives all back', async () => {
    await using folder = await temporaryFolder()
    const paths = [folder.path]
    for (let i = 0; i < 12; i++) paths.push(`${paths.at(-1)}/${i}`)
    mkdirSync(paths.at(-1) as string, { recursive: true })
    for (const path of paths) writeFileSync(join(path, 'file'), path)
    const before = openDescriptors()
    const directories = new OpenDirectories({ maxOpen: 3 })
    try {
      for (const path of [
        ...paths,
        ...paths.toReversed(),
        ...paths.filter((_, i) => i % 3 === 0),
        ...paths,
      ]) {
        expect(readFileSync(`${directories.base(path)}/file`, 'latin1')).toBe(path)
        const { base, stats } = directories.list(path)
        expect(readdirSync(base)).toContain('file')
        expect(stats?.ino).toBe(lstatSync(path, { bigint: true }).ino)
        expect(openDescriptors() - before).toBeLessThanOrEqual(3)
      }
      expect(readdirSync(directories.list('').base)).toContain('proc')
      expect(lstatSync(`${directories.base('')}/proc`).isDirectory()).toBe(true)
    } finally {
      directories.close()
      directories.close()
    }
    expect(openDescriptors()).toBe(before)
  })

  test('refuses links anywhere in the path, and opens nothing for good then', async () => {
    await using folder = await temporaryFolder()
    const at = (name: string): string => join(folder.path, name)
    mkdirSync(at('real/sub'), { recursive: true })
    symlinkSync('real', at('link'))
    const directories = new OpenDirectories()
    const before = openDescriptors()
    for (const path of [at('link'), at('link/sub'), at('link/sub/deeper')]) {
      for (const open of [() => directories.base(path), () => directories.list(path)]) {
        expect(open).toThrow(/ENOTDIR|ELOOP/)
      }
    }
    expect(() => directories.base(at('absent'))).toThrow(/ENOENT/)
    directories.close()
    expect(openDescriptors()).toBeLessThanOrEqual(before)
  })

  test('holds on to a directory whose name goes to another', async () => {
    await using folder = await temporaryFolder()
    const at = (name: string): string => join(folder.path, name)
    mkdirSync(at('one'))
    writeFileSync(at('one/file'), 'first')
    const directories = new OpenDirectories()
    try {
      directories.base(at('one'))
      renameSync(at('one'), at('away'))
      mkdirSync(at('one'))
      writeFileSync(at('one/file'), 'second')
      expect(readFileSync(`${directories.base(at('one'))}/file`, 'latin1')).toBe('first')
      rmSync(at('away'), { recursive: true })
      expect(() => readFileSync(`${directories.base(at('one'))}/file`)).toThrow(/ENOENT/)
    } finally {
      directories.close()
    }
  })
})

test('where no steps can be made, paths are used as they are', () => {
  const directories = new OpenDirectories({ stepwise: false })
  expect(directories.base('/some/where')).toBe('/some/where')
  expect(directories.list('/some/where')).toEqual({ base: '/some/where', stats: undefined })
  directories.close()
})
