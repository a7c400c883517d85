/** A file system of its own, small enough to be filled: an ext4 image, or a tmpfs where that cannot be mounted. */
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, open, rm, statfs, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

export interface SmallDisk extends AsyncDisposable {
  readonly path: string
  /** Such as `ext4`. */
  readonly kind: string
  freeBytes(): Promise<number>
}

/** Of so many bytes; a string says why there can be none. Nothing of it is reserved for root. */
export async function smallDisk(bytes: number): Promise<SmallDisk | string> {
  const folder = await mkdtemp(join(tmpdir(), 'chunkdav-disk-'))
  const path = join(folder, 'disk')
  await mkdir(path)
  const reasons: string[] = []
  for (const [kind, mount] of [
    ['ext4', () => mountImage(join(folder, 'image'), path, bytes)],
    ['tmpfs', () => run('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'none', path])],
  ] as const) {
    try {
      await mount()
    } catch (error) {
      reasons.push(`${kind}: ${(error as Error).message.trim().split('\n').at(-1)}`)
      continue
    }
    return {
      path,
      kind,
      freeBytes: async () => {
        const { bavail, bsize } = await statfs(path)
        return bavail * bsize
      },
      [Symbol.asyncDispose]: async () => {
        await run('umount', ['-l', path])
        await rm(folder, { recursive: true, force: true })
      },
    }
  }
  await rm(folder, { recursive: true, force: true })
  return reasons.join('; ')
}

async function mountImage(image: string, path: string, bytes: number): Promise<void> {
  await writeFile(image, '')
  await truncate(image, bytes)
  await run('mkfs.ext4', ['-q', '-F', '-m', '0', image])
  await run('mount', ['-o', 'loop', image, path])
}

/** Grows a file until there is no byte left on its disk; returns its length. */
export async function growToTheLastByte(path: string): Promise<number> {
  const handle = await open(path, 'a')
  try {
    for (let step = 1024 * 1024; step >= 1; ) {
      try {
        await handle.write(Buffer.alloc(step, 1))
        await handle.datasync()
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
        step = Math.floor(step / 4)
      }
    }
    return (await handle.stat()).size
  } finally {
    await handle.close()
  }
}
